# SPDX-License-Identifier: MIT
import platform
import sqlite3
import sys

path, script, so = sys.argv[1:]
print(platform.python_version(), sqlite3.sqlite_version, sep="\n")
db = sqlite3.connect(path, isolation_level=None)
if so:
    db.enable_load_extension(True)
    db.load_extension(so)
for sql in open(script):
    print(db.execute(sql).fetchall()[0][0])
db.close()
