#!/bin/bash
# SPDX-License-Identifier: MIT
# build.sh: build/shell/choir-shell-asan and choir-shell-nonet (CHOIR_OMIT_NET):
# SQLite's own command-line shell with choir linked in from the amalgamation.
# The shell's source comes from Debian's source package, of the version of
# libsqlite3.a.
set -eu
cd "$(dirname "$0")/../.."
out=$PWD/build/shell
mkdir -p "$out"

fetch() { # Debian's source package, through apt with lists of its own
  local apt=$out/apt
  rm -rf "$apt"
  mkdir -p "$apt"/{parts,lists/partial,cache/archives/partial}
  local f
  for f in /etc/apt/sources.list.d/debian.sources; do
    [ ! -f $f ] || sed 's/^Types:.*/Types: deb-src/' $f >"$apt/parts/src.sources"
  done
  [ ! -s /etc/apt/sources.list ] ||
    sed -n 's/^deb \(.*debian.*\)/deb-src \1/p' /etc/apt/sources.list \
      >"$apt/parts/src.list"
  local opt=(-qq -o Dir::Etc::SourceList=/dev/null -o APT::Sandbox::User=root
    -o Dir::Etc::SourceParts="$apt/parts" -o Dir::State::Lists="$apt/lists"
    -o Dir::Cache="$apt/cache")
  apt-get "${opt[@]}" update
  (cd "$apt" && apt-get "${opt[@]}" source --download-only "sqlite3=$1")
  tar -xJf "$apt"/sqlite3_*.orig.tar.xz -C "$apt"
  /usr/bin/python3 tests/shell/make_shell_c.py "$apt"/sqlite3-*/ "$out/shell.c"
  rm -rf "$apt"
}

version=$(dpkg-query -W -f '${Version}' libsqlite3-dev)
if [ "$(cat "$out/version" 2>/dev/null)" != "$version" ]; then
  fetch "$version"
  gcc -O1 -DSQLITE_SHELL_INIT_PROC=choirShellInit -c "$out/shell.c" \
    -o "$out/shell.o"
  echo "$version" >"$out/version"
fi

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
