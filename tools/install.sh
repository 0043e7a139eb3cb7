#!/bin/bash
# SPDX-License-Identifier: MIT
# install.sh DESTDIR PREFIX SO | install.sh --remove DESTDIR PREFIX
#
# `.load choir` makes SQLite ask the dynamic linker for "choir.so", which looks
# through LD_LIBRARY_PATH and the cache of ldconfig. ldconfig reads lib*.so*
# only and enters a file under its soname: libchoir.so, whose soname is
# choir.so, is found by that name. The link beside it serves `.load /path/choir`.
set -eu
remove=0
[ "$1" = --remove ] && remove=1 && shift
lib=$1$2/lib
if [ $remove = 1 ]; then
  rm -fv "$lib/libchoir.so" "$lib/choir.so"
else
  install -d "$lib"
  install -m 755 "$3" "$lib/libchoir.so"
  ln -sf libchoir.so "$lib/choir.so"
  echo "  $lib/libchoir.so, choir.so"
fi
[ -z "$1" ] || exit 0 # a package being built: its own script runs ldconfig
PATH=$PATH:/sbin:/usr/sbin
if [ -w /etc/ld.so.cache ]; then ldconfig; fi
[ $remove = 0 ] || exit 0
if ldconfig -p 2>/dev/null | grep -qF "$lib/choir.so"; then
  echo "  now works from any folder:  sqlite3 -cmd '.load choir'"
else
  cat <<TEXT
  $lib is not on the dynamic linker's path, so use one of
    sqlite3 -cmd '.load $lib/choir'
    echo '.load $lib/choir' >> ~/.sqliterc          # every sqlite3 shell
    export LD_LIBRARY_PATH=$lib                     # then .load choir
TEXT
fi
