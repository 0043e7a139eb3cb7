# SPDX-License-Identifier: MIT
import sys

import apsw


def named(thing, new, old):
    """apsw renamed its methods; Debian's is from before."""
    return getattr(thing, new, None) or getattr(thing, old)


path, script, so = sys.argv[1:]
print(named(apsw, "apsw_version", "apswversion")(),
      named(apsw, "sqlite_lib_version", "sqlitelibversion")(), sep="\n")
db = apsw.Connection(path)
if so:
    named(db, "enable_load_extension", "enableloadextension")(True)
    named(db, "load_extension", "loadextension")(so)
for sql in open(script):
    print(list(db.cursor().execute(sql))[0][0])
db.close()
