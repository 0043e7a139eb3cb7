# SPDX-License-Identifier: MIT
import sys

import apsw

path, script, so = sys.argv[1:]
print(apsw.apsw_version(), apsw.sqlite_lib_version(), sep="\n")
db = apsw.Connection(path)
if so:
    db.enable_load_extension(True)
    db.load_extension(so)
for sql in open(script):
    print(db.execute(sql).fetchall()[0][0])
db.close()
