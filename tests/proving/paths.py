# SPDX-License-Identifier: MIT
"""P: whatever stands where a file should go, nothing outside is touched.

    paths.py DIR [--seed S]

Every function that writes or reads files, at every kind of thing in the way:
symbolic links as the last and as a middle part, loops, pipes, folders, folders
that may not be written, `..`; then the modes of everything made under three
umasks; then folders that somebody swaps for links while choir works. Runs as
nobody when started by root, who may write everywhere.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import sqlite3
import stat
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
from conftest import Db  # noqa: E402

# {p} is the place in question, {f} the folder of the case.
WRITES = {
    "backup": "choir_backup('{p}')",
    "agent export": "choir_export('{p}')",
    "artifact_export": "artifact_export('{p}')",
    "state_export": "state_export('{p}')",
    "s3_put": "s3_put('file://{p}', 'evil')",
    "s3_put in it": "s3_put('file://{p}/k', 'evil')",
    "s3_copy": "s3_copy('file://{f}/in.txt', 'file://{p}')",
    "s3_get_file": "s3_get_file('file://{f}/in.txt', '{p}')",
    "s3_delete": "s3_delete('file://{p}')",
    "push to a file": "sync_push('file://{p}/ws.sqlite')",
    "push to it": "sync_push('file://{p}')",
    "push to a folder": "sync_push('file://{p}/')",
    "restore": "sync_restore(1, '{p}', 'file://{f}/pages/')",
    "flush": "choir_config('remote.artifacts', 'file://{p}'), artifact_flush(),"
             " artifact_sweep(0)",
}
READS = {
    "put_file": "artifact_put_file('/x', '{p}')",
    "import": "artifact_import('{p}', '/x')",
    "choir_import": "choir_import('{p}')",
    "state_import": "state_import('{p}')",
    "s3_get": "s3_get('file://{p}')",
    "pull": "sync_pull('file://{p}', 'theirs')",
}


def way(kind, folder, outside):
    """Puts something in the way; the path to give to choir."""
    p = folder / "place"
    if kind == "link to a file":
        p.symlink_to(outside / "victim")
    elif kind == "link to a folder":
        p.symlink_to(outside)
    elif kind == "dangling link":
        p.symlink_to(outside / "new")
    elif kind == "loop":
        p.symlink_to(p)
    elif kind == "middle link":
        p.symlink_to(outside)
        return p / "victim"
    elif kind == "middle link, new":
        p.symlink_to(outside)
        return p / "new"
    elif kind == "pipe":
        os.mkfifo(p)
    elif kind == "folder":
        p.mkdir()
    elif kind == "unwritable folder":
        p.mkdir(0o500)
        return p / "new"
    elif kind == "unreadable file":
        p.write_text("x")
        p.chmod(0)
    elif kind == "up":
        return folder / "sub/../../outside/victim"
    elif kind == "up, new":
        return folder / "sub/../../outside/new"
    elif kind == "file as folder":
        p.write_text("x")
        return p / "new"
    elif kind == "null device":
        return pathlib.Path("/dev/null")
    elif kind == "links inside":  # a folder as it should be, with links in it
        p.mkdir()
        for n in ("ws.sqlite", "k", "a.md", "users", "n", "mood.json", "0000"):
            (p / n).symlink_to(outside)
    return p


WAYS = ("link to a file", "link to a folder", "dangling link", "loop",
        "middle link", "middle link, new", "pipe", "folder",
        "unwritable folder", "unreadable file", "up", "up, new",
        "file as folder", "null device", "links inside")
# A user may name a link as the folder to use, and `..`: these are theirs.
THEIRS = ("link to a folder", "middle link", "middle link, new", "up",
          "up, new")


def look(folder):
    out = {}
    for p in sorted(folder.rglob("*")):
        s = p.lstat()
        out[str(p.relative_to(folder))] = (
            s.st_mode, s.st_size if p.is_file() else 0,
            p.read_bytes() if p.is_file() else b"")
    return out


class Paths:
    def __init__(self, folder):
        self.folder = folder
        self.count, self.violations = 0, []
        self.base = folder / "base"
        self.base.mkdir(parents=True)
        os.environ["HOME"] = str(folder / "home")
        os.environ["CHOIR_USER"] = "u1"
        (folder / "home").mkdir()
        d = Db(self.base / "ws.db", init=True)
        d.rows("PRAGMA journal_mode = delete")
        for i in range(3):
            d.one("SELECT artifact_put(?, 'text')", f"/n/{i}.md")
        d.one("SELECT artifact_put('/a.md', 'text')")
        d.one("SELECT artifact_put('/large', zeroblob(1100000))")
        d.one("SELECT state_set('mood', '$', 1)")
        (self.base / "pages").mkdir()
        d.one("SELECT sync_push(?)", f"file://{self.base}/pages/")
        # Rows that no function of choir writes: a foreign file has them.
        for path in "/../evil", "/n/../../evil", "//evil", "/n/./evil", "/a/\0b":
            try:
                d.rows("INSERT INTO artifacts(path, name, content)"
                       " VALUES(?, 'evil', 'evil')", path)
            except sqlite3.Error:
                pass
        d.close()
        (self.base / "in.txt").write_text("in")

    def bad(self, replay, what):
        self.violations.append({"replay": replay, "what": str(what)[:500]})

    def case(self, name, sql, kind):
        self.count += 1
        root = self.folder / "case"
        shutil.rmtree(root, ignore_errors=True)
        at, outside = root / "at", root / "outside"
        shutil.copytree(self.base, at)
        (at / "sub").mkdir()
        outside.mkdir()
        (outside / "victim").write_text("precious")
        p = way(kind, at, outside)
        before = look(outside)
        d = Db(at / "ws.db")
        d.rows("PRAGMA busy_timeout = 0")
        start, said = time.monotonic(), ""
        try:
            d.rows("SELECT " + sql.format(p=p, f=at))
        except sqlite3.Error as e:
            said = str(e)
            if not said.split(":")[0].isidentifier():
                self.bad(f"{name};{kind}", f"not the form of an error: {said}")
        d.close()
        if time.monotonic() - start > 20:
            self.bad(f"{name};{kind}", "it hangs")
        after = look(outside)
        if kind in THEIRS:  # what is there may be used, and is not lost
            if name != "s3_delete" and "victim" not in after:
                self.bad(f"{name};{kind}", "the file outside is gone")
            elif kind in ("link to a folder", "middle link, new", "up, new") \
                    and after.get("victim") != before["victim"]:
                self.bad(f"{name};{kind}", "the file outside is another")
        elif after != before:
            self.bad(f"{name};{kind}", f"outside changed: {sorted(after)} {said}")
        os.system(f"chmod -R u+rwx {root}")
        con = sqlite3.connect(at / "ws.db")
        if con.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            self.bad(f"{name};{kind}", "the workspace is damaged")
        con.close()

    def modes(self):
        """Under any umask: private files 0600, folders 0700; what a user
        exports for others obeys the umask and is written by nobody else."""
        for mask in (0o000, 0o022, 0o077):
            root = self.folder / "modes"
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            home = root / "home"
            home.mkdir()
            os.environ["HOME"] = str(home)
            old = os.umask(mask)
            shutil.copytree(self.base, root / "at")
            d = Db(root / "at/ws.db")
            d.rows("DELETE FROM artifacts WHERE name = 'evil'")
            for n in "store", "plain", "pages":
                (root / n).mkdir()
            for sql in (f"choir_backup('{root}/backup.db')",
                        f"choir_export('{root}/agent.db')",
                        f"sync_push('file://{root}/plain/ws.sqlite')",
                        f"sync_push('file://{root}/pages/')",
                        "choir_config('remote.artifacts', 'file://"
                        f"{root}/store')", "artifact_flush()",
                        f"s3_put('file://{root}/store/o', 'x')",
                        f"s3_get_file('file://{root}/store/o', '{root}/o')",
                        f"sync_restore(1, '{root}/old.db',"
                        f" 'file://{root}/at/pages/')",
                        f"artifact_export('{root}/public')",
                        f"state_export('{root}/public-state')"):
                d.rows("SELECT " + sql)
            d.rows("SELECT artifact_put('/new', 'x')")
            e = Db(root / "other.db")
            e.rows(f"SELECT sync_pull('file://{root}/pages/')")
            e.rows("SELECT artifact_put('/mine', 'x')")
            d.rows(f"SELECT sync_push('file://{root}/pages/')")
            e.rows(f"SELECT sync_pull('file://{root}/pages/', 'theirs')")
            d.close()
            e.close()
            os.umask(old)
            for p in root.rglob("*"):
                self.count += 1
                name = str(p.relative_to(root))
                m = stat.S_IMODE(p.lstat().st_mode)
                if name.startswith("public"):
                    ok = not m & 0o002 and (mask == 0 or not m & mask)
                elif name in ("home", "at", "plain", "pages", "store") or \
                        name.startswith(("at/", "other.db")):
                    continue  # made by this test, or by SQLite for the host
                else:
                    ok = m == (0o700 if p.is_dir() else 0o600)
                if not ok:
                    self.bad(f"modes;{mask:o}", f"{name} has mode {m:o}")
        os.environ["HOME"] = str(self.folder / "home")

    def swaps(self, seconds):
        """A folder is now itself, now a link to another, while choir works."""
        root = self.folder / "swap"
        root.mkdir()
        outside = root / "outside"
        outside.mkdir()
        (outside / "victim").write_text("precious")
        shutil.copytree(self.base, root / "at")
        for n in "n", "users":
            (outside / n).mkdir()
        before = look(outside)
        stop = multiprocessing.Event()
        worker = multiprocessing.Process(target=swapper, args=(root, stop))
        worker.start()
        d = Db(root / "at/ws.db")
        d.rows(f"SELECT choir_config('remote.artifacts', 'file://{root}/out')")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for sql in (f"artifact_export('{root}/out')", "artifact_flush()",
                        f"s3_put('file://{root}/out/n/k', 'x')",
                        f"s3_delete('file://{root}/out/n/k')",
                        f"state_export('{root}/out/n')"):
                self.count += 1
                try:
                    d.rows("SELECT " + sql)
                except sqlite3.Error:
                    pass
        stop.set()
        worker.join()
        d.close()
        # Those that were told to work in out/n may, whatever that is.
        after = {k: v for k, v in look(outside).items() if k not in
                 ("mood.json", "k", ".choir-lock")}
        if after != before:
            self.bad("swaps", {k for k in after if after.get(k) !=
                               before.get(k)} | (before.keys() - after.keys()))

    def run(self, seconds):
        for name, sql in {**WRITES, **READS}.items():
            for kind in WAYS:
                self.case(name, sql, kind)
        self.modes()
        self.swaps(seconds)
        return {"count": self.count, "violations": self.violations}


def swapper(root, stop):
    """out/n is a folder, then a link to the one outside, and so on."""
    inside = root / "out/n"
    while not stop.is_set():
        try:
            inside.mkdir(parents=True, exist_ok=True)
            os.rename(inside, root / "aside")
            os.symlink(root / "outside", inside)
            os.unlink(inside)
            os.rename(root / "aside", inside)
        except OSError:
            shutil.rmtree(root / "aside", ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    folder = args.dir.resolve() / "p"
    os.system(f"chmod -R u+rwx {folder} 2>/dev/null")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if os.getuid() == 0:
        os.chmod(args.dir, 0o755)
        os.chown(folder, 65534, 65534)
        os.setgid(65534)
        os.setuid(65534)
    print(json.dumps(Paths(folder).run(args.seconds)))


if __name__ == "__main__":
    main()
