# SPDX-License-Identifier: MIT
"""versitygw, an S3 server over a folder, from the Go module proxy.

Installed once into build/servers; started on 127.0.0.1 and ended by its
process id. strict about signatures, clocks and presigned URLs.
"""
import pathlib
import socket
import subprocess
import time

from go_program import go_program

MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
ACCESS, SECRET, REGION = "AKIAVERSITY00001", "versity-secret/+=", "eu-test-1"


def program():
    """The server's path, or None when it cannot be had here."""
    return go_program("versitygw", MODULE)


class Versitygw:
    access, secret, region = ACCESS, SECRET, REGION

    def __init__(self, folder, tls=None):
        """tls: (certificate, key) files."""
        self.folder = pathlib.Path(folder)
        for name in ("data", "data/bucket", "data/other.bucket", "iam"):
            (self.folder / name).mkdir()
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            [program(), "--port", f"127.0.0.1:{self.port}", "--access", ACCESS,
             "--secret", SECRET, "--region", REGION, "--iam-dir",
             str(self.folder / "iam")]
            + (["--cert", str(tls[0]), "--key", str(tls[1])] if tls else [])
            + ["posix", str(self.folder / "data")],
            stdout=self.log, stderr=self.log)
        self.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text())
                time.sleep(0.05)
        raise RuntimeError("versitygw does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()
