# SPDX-License-Identifier: MIT
"""Ceph's S3 gateway: one monitor, one object daemon in memory, one radosgw,
all on 127.0.0.1, from Debian's packages ceph-mon, ceph-osd and radosgw.

Strict about signatures and clocks; atomic in its conditional writes; compares
If-Match with the ETag unquoted; ignores conditions when an upload completes.
It takes a quarter of a minute to start: shared() lets the workers of one run
use one.
"""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

ACCESS, SECRET, REGION = "AKIACEPH00000001", "ceph-secret/+=", "default"
PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool",
            "radosgw", "radosgw-admin")

CONF = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}/0]
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {dir}/keyring
mon data = {dir}/mon
osd data = {dir}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pgp num = 2
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon data avail crit = 1
mon warn on pool no redundancy = false
mon osd min in ratio = 0
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv4 = true
run dir = {dir}
admin socket = {dir}/$name.asok
log file = {dir}/$name.log
pid file = {dir}/$name.pid
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable usage log = false
rgw enable ops log = false
rgw gc obj min wait = 1
rgw thread pool size = 64
debug mon = 0
debug osd = 0
debug rgw = 0
debug ms = 0
"""


def missing():
    return [p for p in PROGRAMS if not shutil.which(p)]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Rgw:
    access, secret, region = ACCESS, SECRET, REGION
    name = "rgw"

    def __init__(self, folder):
        self.folder = folder = pathlib.Path(folder)
        self.mon, self.port = free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.processes = []
        (folder / "mon").mkdir()
        (folder / "osd").mkdir()
        fsid = str(uuid.uuid4())
        (folder / "ceph.conf").write_text(CONF.format(
            fsid=fsid, mon=self.mon, port=self.port, dir=folder))
        try:
            self.start_mon(fsid)
            self.start_osd()
            self.start_rgw()
        except BaseException:
            self.stop()
            raise

    def run(self, *args, data=None):
        args = [args[0], "-c", str(self.folder / "ceph.conf"), *args[1:]]
        done = subprocess.run(args, input=data, capture_output=True, text=True,
                              timeout=60)
        if done.returncode:
            raise RuntimeError(f"{args}: {done.stderr[-800:]}")
        return done.stdout

    def daemon(self, *args):
        log = open(self.folder / (os.path.basename(args[0]) + ".out"), "wb")
        self.processes.append(subprocess.Popen(
            [args[0], "-c", str(self.folder / "ceph.conf"), "-f", *args[1:]],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        log.close()

    def start_mon(self, fsid):
        d = self.folder
        tool = ["ceph-authtool", str(d / "keyring")]
        subprocess.run(tool + ["--create-keyring", "--gen-key", "-n", "mon.",
                               "--cap", "mon", "allow *"],
                       check=True, capture_output=True)
        subprocess.run(tool + ["--gen-key", "-n", "client.admin", "--cap",
                               "mon", "allow *", "--cap", "osd", "allow *",
                               "--cap", "mgr", "allow *"],
                       check=True, capture_output=True)
        # the object daemon's key is known before `osd new` asks for it
        subprocess.run(tool + ["--gen-key", "-n", "osd.0", "--cap", "mon",
                               "allow profile osd", "--cap", "osd", "allow *"],
                       check=True, capture_output=True)
        subprocess.run(["monmaptool", "--create", "--fsid", fsid, "--addv",
                        "a", f"[v2:127.0.0.1:{self.mon}/0]",
                        str(d / "monmap")], check=True, capture_output=True)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap",
                 str(d / "monmap"), "--keyring", str(d / "keyring"))
        self.daemon("ceph-mon", "-i", "a")
        self.run("ceph", "--connect-timeout", "30", "auth", "import", "-i",
                 str(d / "keyring"))

    def start_osd(self):
        number = str(uuid.uuid4())
        self.run("ceph", "osd", "new", number)
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", number)
        self.daemon("ceph-osd", "-i", "0")

    def start_rgw(self):
        self.daemon("radosgw", "-n", "client.admin")
        self.run("radosgw-admin", "user", "create", "--uid", "test",
                 "--display-name", "test", "--access-key", ACCESS,
                 "--secret-key", SECRET)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                self.alive()
                time.sleep(0.05)
        raise RuntimeError("radosgw does not answer")

    def alive(self):
        for p in self.processes:
            if p.poll() is not None:
                name = os.path.basename(p.args[0]) + ".out"
                raise RuntimeError(name + ": " + (
                    self.folder / name).read_text()[-800:])

    def stop(self):
        for p in reversed(self.processes):
            p.send_signal(signal.SIGKILL)
        for p in self.processes:
            p.wait(10)


class Shared:
    """What another process of this run has started."""
    access, secret, region = ACCESS, SECRET, REGION
    name = "rgw"

    def __init__(self, said, release):
        self.endpoint, self.release = said["endpoint"], release
        self.port = int(self.endpoint.rsplit(":", 1)[1])

    def stop(self):
        self.release()
        self.release = lambda: None


def shared(run):
    """The instance of the test run that has this name, started by whoever
    comes first; the last one to stop() ends it. A file per run counts its
    users; a keeper process holds the daemons, so that they outlive the worker
    that started them."""
    base = pathlib.Path(tempfile.gettempdir()) / f"choir-rgw-{run}"
    base.mkdir(exist_ok=True)
    said = base / "said"

    def locked(change):
        with open(base / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return change()

    def enter():
        data = json.loads(said.read_text()) if said.exists() else None
        if data is None:
            folder = tempfile.mkdtemp(prefix="rgw-", dir=base)
            keeper = subprocess.Popen(
                [sys.executable, __file__, folder], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, text=True, start_new_session=True)
            line = keeper.stdout.readline()
            if not line.startswith("{"):
                raise RuntimeError("rgw: " + line)
            data = json.loads(line)
            data["users"] = 0
        data["users"] += 1
        said.write_text(json.dumps(data))
        return data

    def leave():
        data = json.loads(said.read_text())
        data["users"] -= 1
        said.write_text(json.dumps(data))
        if data["users"] == 0:
            said.unlink()
            os.kill(data["pid"], signal.SIGTERM)
            for _ in range(100):
                try:  # a child of this process, or another worker's
                    if os.waitpid(data["pid"], os.WNOHANG)[0]:
                        break
                except ChildProcessError:
                    if not os.path.exists(f"/proc/{data['pid']}"):
                        break
                time.sleep(0.05)
            shutil.rmtree(data["folder"], ignore_errors=True)

    return Shared(locked(enter), lambda: locked(leave))


def keep(folder):
    """Starts one, says where it is, holds it until told to end or until the
    process that wanted it is gone for an hour."""
    server = Rgw(folder)
    print(json.dumps({"endpoint": server.endpoint, "pid": os.getpid(),
                      "folder": str(folder)}), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        time.sleep(3600)
    finally:
        server.stop()


if __name__ == "__main__":
    keep(sys.argv[1])
