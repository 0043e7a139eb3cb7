#!/bin/bash
# SPDX-License-Identifier: MIT
# build.sh: build/shell/choir-shell-asan and choir-shell-nonet (CHOIR_OMIT_NET):
# SQLite's own command-line shell with choir linked in from the amalgamation.
# The shell's source comes from Debian's source package, of the version of
# libsqlite3.a.
set -eu
cd "$(dirname "$0")/../.."
. tests/shell/apt.sh
out=$PWD/build/shell
mkdir -p "$out"

fetch() { # Debian's source package
  local to=$out/apt
  rm -rf "$to"
  apt_own "$to" deb-src "$(dpkg --print-architecture)"
  (cd "$to" && "${apt[@]}" source --download-only "sqlite3=$1")
  tar -xJf "$to"/sqlite3_*.orig.tar.xz -C "$to"
  /usr/bin/python3 tests/shell/make_shell_c.py "$to"/sqlite3-*/ "$out/shell.c"
  rm -rf "$to"
}

version=$(dpkg-query -W -f '${Version}' libsqlite3-dev)
if [ "$(cat "$out/version" 2>/dev/null)" != "$version" ]; then
  fetch "$version"
  gcc -O1 -DSQLITE_SHELL_INIT_PROC=choirShellInit -c "$out/shell.c" \
    -o "$out/shell.o"
  echo "$version" >"$out/version"
fi
[ "${1:-}" != source ] || exit 0 # for tests/platforms

make -s amalgamation
link() { # link NAME FLAGS…
  local name=$1
  shift
  [ "$out/$name" -nt dist/choir.c ] && return
  gcc -O1 -g -DSQLITE_CORE "$@" dist/choir.c tests/shell/shell_init.c \
    "$out/shell.o" /usr/lib/"$(gcc -print-multiarch)"/libsqlite3.a \
    -lm -ldl -lpthread -o "$out/$name"
}
link choir-shell-nonet -DCHOIR_OMIT_NET &
link choir-shell-asan -fno-omit-frame-pointer \
  -fsanitize=address,undefined -fno-sanitize-recover=undefined
wait $!
