# SPDX-License-Identifier: MIT
"""The proving ground: failures swept over everything, counted in one table.

    run.py [LETTER]… [--full | --slice] [--seed S]
                                   `make proving`, FULL=1 or SLICE=1, T=K SEED=n

K kills and I/O faults, H hostile files, B bad input, S secrets, P paths, T
processes with threads, L load; and from elsewhere in tests/: N the network, O
allocations, C devices in any order, R damaged remotes, F fuzzing, D threads
under ThreadSanitizer. A line says how to run its violations again; they are in
build/proving/<letter>.log. --full tries every point of every sweep; --slice is
the part of .ci/run: some minutes of what `make test` does not try, always with
seed 1.
"""
import argparse
import atexit
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import faults  # noqa: E402
ROOT = HERE.parent.parent
LOG = ROOT / "build/proving"
PYTEST = [str(ROOT / "build/venv/bin/python"), "-m", "pytest", "-q", "-n", "2"]
OWN = ("K", "H", "B", "S", "P", "T", "L")
SEEDED = ("K", "H", "B", "P", "T", "L", "O")
JOBS = f"-j{os.cpu_count()}"
SLICE, CHANGE, FULL = range(3)


def own(script, *args, workers=1, shim=False):
    return {"script": script, "args": args, "workers": workers, "shim": shim}


def other(command, count, env=None):
    """count: where its output says how many; the last time counts."""
    return {"command": command, "count": count, "env": env or {}}


PASSED = r"(\d+) passed"


def stages(size, seed):
    def pick(*choice):
        return choice[size]
    full = size == FULL
    faults_of_network = sorted(str(p.relative_to(ROOT)) for p in
                               (ROOT / "tests").glob("*/test_*_faults.py"))
    return [
        ("K", "kill, half and torn and lost writes, I/O errors",
         own("faults.py", "--points", pick("2", "3", "0"), workers=2, shim=True)),
        ("H", "what a hostile file can hold, and its uses",
         own("hostile.py", "--every", pick("12", "10", "1"), shim=True)),
        ("B", "bad arguments of every function",
         own("badinput.py", "--every", pick("8", "6", "1"))),
        ("S", "places searched for secrets", own("canary.py")),
        ("P", "things in the way of a path, modes, swaps",
         own("paths.py", "--seconds", pick("2", "3", "60"))),
        ("T", "calls of 8 processes with 4 threads",
         own("threads.py", "--seconds", pick("5", "10", "120"))),
        ("L", "rows, MiB and cycles, with slopes",
         own("load.py", *pick(*[("--rows", "100000", "--mib", "30",
                                 "--cycles", "500")] * 2, ()))),
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
            ["make", "-s", "test", "T=oom"], r"(\d+) allocations failed",
            {"OOM_SEED": str(seed), **({"OOM_PLACES": "1"} if full else {})})),
        ("F", "inputs of fuzz targets", other(
            ["make", "-s", JOBS, "fuzz", "T=", "SECONDS=" + pick("0", "2", "600")],
            r"held for (\d+) runs")),
        ("D", "threads of one process under ThreadSanitizer", other(
            ["make", "-s", JOBS, "tsan"], r"(\d+) calls")),
    ]


def run_own(letter, stage, seed, log):
    """Starts its workers, adds up what they print."""
    large = letter == "L"  # larger than memory should hold
    folder = faults.scratch(LOG if large else None)
    env = dict(os.environ)
    if stage["shim"]:
        env["LD_PRELOAD"] = str(faults.build_shim(folder))
    running = []
    for i in range(stage["workers"]):
        command = ["/usr/bin/python3", str(HERE / stage["script"]),
                   str(folder), *stage["args"]]
        if letter in SEEDED:
            command += ["--seed", str(seed)]
        if stage["workers"] > 1:
            command += ["--worker", f"{i}/{stage['workers']}"]
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
    faults.remove(folder)
    for k, v in facts.get("facts", {}).items():
        print(f"    {k}: {v}")
    return count, len(violations)


def run_other(stage, log):
    env = {**os.environ, **stage["env"]}
    p = subprocess.run(stage["command"], env=env, cwd=ROOT, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log.write(p.stdout)
    count = [0, *map(int, re.findall(stage["count"], p.stdout))][-1]
    failed = [0, *map(int, re.findall(r"(\d+) failed", p.stdout))][-1]
    targets = len(re.findall(r"^fuzz: \S+ +FAILED", p.stdout, re.M))
    return count, max(failed, targets, int(p.returncode != 0))


def replay(letter, size, seed):
    """What runs its violations again; those of K, H and B have a name each."""
    if letter in ("K", "H", "B"):
        return f"make proving T={letter} REPLAY='…'"
    return " ".join([f"make proving T={letter}", *[f"SEED={seed}"] * (
        letter in SEEDED), *["FULL=1"] * (size == FULL)])


def again(letter, stage, what):
    """One violation of K, H or B again."""
    folder = faults.scratch()
    env = dict(os.environ)
    if stage["shim"]:
        env["LD_PRELOAD"] = str(faults.build_shim(folder))
    code = subprocess.run(["/usr/bin/python3", str(HERE / stage["script"]),
                           str(folder), "--replay", what], env=env).returncode
    faults.remove(folder)
    sys.exit(code)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("letters", nargs="*")
    parser.add_argument("--full", action="store_const", const=FULL,
                        dest="size", default=CHANGE)
    parser.add_argument("--slice", action="store_const", const=SLICE,
                        dest="size")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--replay")
    args = parser.parse_args()
    LOG.mkdir(parents=True, exist_ok=True)
    own_so = faults.scratch(LOG)  # whatever is built meanwhile
    atexit.register(faults.remove, own_so)
    os.chmod(own_so, 0o755)  # P becomes nobody
    os.environ["CHOIR_SO"] = shutil.copy(
        os.environ.get("CHOIR_SO", ROOT / "choir.so"), own_so)
    if args.seed is None:
        args.seed = 1 if args.size == SLICE else int(time.time()) % 100000
    wanted = args.letters or (OWN + ("F",) if args.size == SLICE else None)
    table, bad, total, begin = [], 0, 0, time.monotonic()
    for letter, what, stage in stages(args.size, args.seed):
        if wanted and letter not in wanted:
            continue
        if args.replay:
            again(letter, stage, args.replay)
        print(f"== {letter}: {what}", flush=True)
        start = time.monotonic()
        with open(LOG / f"{letter}.log", "w") as log:
            count, violations = run_own(letter, stage, args.seed, log) \
                if letter in OWN else run_other(stage, log)
        bad += violations + (count == 0)
        total += count
        table.append((letter, what, f"{count:,}", violations,
                      f"{time.monotonic() - start:.0f}", args.seed
                      if letter in SEEDED else "-",
                      replay(letter, args.size, args.seed)))
        if violations or not count:
            tail = (LOG / f"{letter}.log").read_text()[-1500:]
            print(tail if count else "    nothing was counted\n" + tail)
    head = ("", "what", "count", "violations", "s", "seed", "again")
    wide = [max(len(str(r[i])) for r in [head, *table]) for i in range(7)]
    for r in [head, *table]:
        print("  ".join(str(c).rjust(w) if 1 < i < 6 else str(c).ljust(w)
                        for i, (c, w) in enumerate(zip(r, wide))).rstrip())
    print(f"proving: {total:,} tries by {len(table)} letters in"
          f" {time.monotonic() - begin:.0f} s, {bad or 'no'} violations")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
