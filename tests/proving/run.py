# SPDX-License-Identifier: MIT
"""The proving ground: failures swept over everything, counted in one table.

    run.py [LETTER]… [--full] [--seed S]        `make proving`, FULL=1, T=K

K kills and I/O faults, H hostile files, B bad input, S secrets, P paths, T
processes with threads, L load; and from elsewhere in tests/: N the network, O
allocations, C devices in any order, R damaged remotes, F fuzzing, D threads
under ThreadSanitizer. A line says how to run its violations again; they are in
build/proving/<letter>.log, and --full tries every point of every sweep.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import faults  # noqa: E402
ROOT = HERE.parent.parent
LOG = ROOT / "build/proving"
PYTEST = [str(ROOT / "build/venv/bin/python"), "-m", "pytest", "-q", "-n", "2"]
OWN = ("K", "H", "B", "S", "P", "T", "L")


def own(script, *args, workers=1, shim=False):
    return {"script": script, "args": args, "workers": workers, "shim": shim}


def other(command, count, env=None):
    """count: what its output must match; the numbers are added up."""
    return {"command": command, "count": count, "env": env or {}}


PASSED = r"(\d+) passed"


def stages(full):
    def pick(slice_, all_):
        return all_ if full else slice_
    faults_of_network = sorted(str(p.relative_to(ROOT)) for p in
                               (ROOT / "tests").glob("*/test_*_faults.py"))
    return [
        ("K", "kill, half and torn and lost writes, I/O errors",
         own("faults.py", "--points", pick("3", "0"), workers=2, shim=True)),
        ("H", "what a hostile file can hold, and its uses",
         own("hostile.py", "--every", pick("10", "1"), shim=True)),
        ("B", "bad arguments of every function",
         own("badinput.py", "--every", pick("6", "1"))),
        ("S", "places searched for secrets", own("canary.py")),
        ("P", "things in the way of a path, modes, swaps",
         own("paths.py", "--seconds", pick("3", "60"))),
        ("T", "calls of 8 processes with 4 threads",
         own("threads.py", "--seconds", pick("10", "120"))),
        ("L", "rows, MiB and cycles, with slopes",
         own("load.py", *pick(("--rows", "100000", "--mib", "30", "--cycles",
                               "500"), ()))),
        ("N", "network faults by programme, test cases", other(
            PYTEST + faults_of_network, PASSED, {f"CHOIR_{r}_FULL": "1" for r in (
                "SYNC", "OBJECT", "NATS", "QDRANT", "EMBED")} if full else {})),
        ("C", "schedules of devices, test cases", other(
            PYTEST + ["tests/sync/test_sync_random.py"], PASSED,
            {"CHOIR_SYNC_FULL": "1"} if full else {})),
        ("R", "damaged and rolled back remotes, test cases", other(
            PYTEST + ["tests/sync/test_sync_damage.py"], PASSED,
            {"CHOIR_SYNC_FULL": "1"} if full else {})),
        ("O", "allocations that fail", other(
            ["make", "-s", "test", "T=oom"], r"(\d+) allocations failed")),
        ("F", "inputs of fuzz targets", other(
            ["make", "-s", "fuzz", "SECONDS=" + pick("2", "600")],
            r"held for (\d+) runs")),
        ("D", "threads of one process under ThreadSanitizer", other(
            ["make", "-s", "tsan"], r"(\d+) calls")),
    ]


def run_own(letter, stage, seed, log):
    """Starts its workers, adds up what they print."""
    large = letter == "L"  # larger than memory should hold
    folder = pathlib.Path(tempfile.mkdtemp(dir=LOG)) if large else faults.scratch()
    env = dict(os.environ)
    if stage["shim"]:
        env["LD_PRELOAD"] = str(faults.build_shim(folder))
    running = []
    for i in range(stage["workers"]):
        command = ["/usr/bin/python3", str(HERE / stage["script"]),
                   str(folder), "--seed", str(seed), *stage["args"]]
        if stage["workers"] > 1:
            command += ["--worker", f"{i}/{stage['workers']}"]
        if letter == "S":
            del command[3:5]
        running.append(subprocess.Popen(command, env=env, text=True,
                                        stdout=subprocess.PIPE, stderr=log))
    count, violations, facts = 0, [], {}
    for p in running:
        out = p.communicate()[0]
        try:
            r = json.loads(out.strip().splitlines()[-1])
            count += r["count"]
            violations += r["violations"]
            facts |= {k: v for k, v in r.items() if k not in (
                "count", "violations")}
        except (IndexError, ValueError):
            violations.append({"replay": "", "what": f"ended with"
                               f" {p.returncode}: {out[-300:]}"})
    for v in violations:
        log.write(json.dumps(v) + "\n")
    log.write(json.dumps(facts) + "\n")
    os.system(f"chmod -R u+rwx {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    for k, v in facts.get("facts", {}).items():
        print(f"    {k}: {v}")
    return count, len(violations)


def run_other(stage, log):
    env = {**os.environ, **stage["env"]}
    p = subprocess.run(stage["command"], env=env, cwd=ROOT, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log.write(p.stdout)
    count = sum(int(g) for m in re.finditer(stage["count"], p.stdout)
                for g in m.groups() if g)
    failed = re.search(r"(\d+) failed", p.stdout)
    return count, int(failed.group(1)) if failed else int(p.returncode != 0)


def replay(letter, stage, seed):
    if letter in ("K", "H", "B"):
        return f"make proving T={letter} REPLAY='…'"
    if letter in OWN:
        return f"make proving T={letter} SEED={seed}"
    return " ".join([f"{k}={v}" for k, v in stage["env"].items()] + [
        c.replace(str(ROOT) + "/", "") for c in stage["command"]])[:70]


def again(letter, stage, what):
    """One violation of K, H or B again."""
    folder = faults.scratch()
    env = dict(os.environ)
    if stage["shim"]:
        env["LD_PRELOAD"] = str(faults.build_shim(folder))
    code = subprocess.run(["/usr/bin/python3", str(HERE / stage["script"]),
                           str(folder), "--replay", what], env=env).returncode
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("letters", nargs="*")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100000)
    parser.add_argument("--replay")
    args = parser.parse_args()
    LOG.mkdir(parents=True, exist_ok=True)
    so = shutil.copy(os.environ.get("CHOIR_SO", ROOT / "choir.so"), LOG)
    os.environ["CHOIR_SO"] = so  # whatever is built meanwhile
    table, bad = [], 0
    for letter, what, stage in stages(args.full):
        if args.letters and letter not in args.letters:
            continue
        if args.replay:
            again(letter, stage, args.replay)
        print(f"== {letter}: {what}", flush=True)
        start = time.monotonic()
        with open(LOG / f"{letter}.log", "w") as log:
            count, violations = run_own(letter, stage, args.seed, log) \
                if letter in OWN else run_other(stage, log)
        bad += violations + (count == 0)
        table.append((letter, what, f"{count:,}", violations,
                      f"{time.monotonic() - start:.0f}", args.seed
                      if letter in OWN else "-",
                      replay(letter, stage, args.seed)))
        if violations or not count:
            tail = (LOG / f"{letter}.log").read_text()[-1500:]
            print(tail if count else "    nothing was counted\n" + tail)
    head = ("", "what", "count", "violations", "s", "seed", "again")
    wide = [max(len(str(r[i])) for r in [head, *table]) for i in range(7)]
    for r in [head, *table]:
        print("  ".join(str(c).rjust(w) if 1 < i < 6 else str(c).ljust(w)
                        for i, (c, w) in enumerate(zip(r, wide))).rstrip())
    print(f"proving: {'no' if not bad else bad} violations")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
