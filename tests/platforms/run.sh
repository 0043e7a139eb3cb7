#!/bin/bash
# SPDX-License-Identifier: MIT
# run.sh [NAME…]: the SQL-level cases on other processors and another libc.
#
#   i386 arm64 armhf s390x   cross-compiled, run under qemu-user (i386 runs on
#                            an x86-64 kernel as it is); s390x is big-endian
#   musl                     this processor with musl instead of glibc
#
# For each: SQLite's shell with choir linked in from the amalgamation and
# choir.so, without the rooms of the network (CHOIR_OMIT_NET); the cases; then
# files written there and read here, and the other way (exchange.py). SQLite is
# Debian's libsqlite3.a of that processor; musl gets the source of a crate.
# Everything lives in build/platforms; logs in build/platforms/NAME/log.
# ARGS='tests/core -k seal' passes other arguments to pytest.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/shell/apt.sh
out=$PWD/build/platforms
export CHOIR_REPEAT=1 CHOIR_DRIVER=shell

triple() {
  case $1 in
    i386) echo i686-linux-gnu i386-linux-gnu i386 ;;
    arm64) echo aarch64-linux-gnu aarch64-linux-gnu aarch64 ;;
    armhf) echo arm-linux-gnueabihf arm-linux-gnueabihf arm ;;
    s390x) echo s390x-linux-gnu s390x-linux-gnu s390x ;;
    *) return 1 ;;
  esac
}

# The libraries of another processor, unpacked and not installed.
sysroot() { # sysroot NAME
  local to=$out/$1 deb apt
  [ ! -d "$to/root" ] || return 0
  mkdir -p "$to/debs"
  apt_own "$to/apt" deb "$1" # what no mirror gave is missed below
  (cd "$to/debs" && "${apt[@]}" download "libc6:$1" "libgcc-s1:$1" \
    "liblz4-1:$1" "libssl3:$1" "libsqlite3-dev:$1") || return 1
  for deb in "$to"/debs/*.deb; do
    dpkg-deb -x "$deb" "$to/root.new" || return 1
  done
  mv "$to/root.new" "$to/root"
}

# What links NAME's shell: the compiler in cc, SQLite in sqlite, its headers in
# include, and the first words of the shell's command line in start.
debian() { # debian NAME
  local gcc libs qemu root=$out/$1/root
  read -r gcc libs qemu < <(triple "$1")
  tools/setup.sh only "gcc-$gcc" qemu-user || return 1
  sysroot "$1" || return 1
  cc=$gcc-gcc sqlite=$root/usr/lib/$libs/libsqlite3.a
  libs=$root/usr/lib/$libs:$root/lib/$libs
  if [ "$1" = i386 ]; then
    start="$root/lib/ld-linux.so.2 --library-path $libs"
  else
    start="qemu-$qemu -L $root -E LD_LIBRARY_PATH=$libs"
  fi
}

musl() {
  local crate=libsqlite3-sys-0.30.1 to=$out/musl
  tools/setup.sh only musl-tools curl ca-certificates || return 1
  cc=musl-gcc sqlite=$to/sqlite3.o start=
  include=$to/$crate/sqlite3
  [ ! -e "$sqlite" ] || return 0
  curl -sSfL "https://static.crates.io/crates/libsqlite3-sys/$crate.crate" |
    tar -xz -C "$to" "$crate/sqlite3" || return 1
  musl-gcc -O1 -w -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_MATH_FUNCTIONS \
    -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_ENABLE_DBSTAT_VTAB \
    -DSQLITE_ENABLE_STMTVTAB \
    -c "$include/sqlite3.c" -o "$sqlite"
}

build() { # build NAME
  local to=$out/$1 cc sqlite start include=$out/include flags
  mkdir -p "$to"
  if [ "$1" = musl ]; then musl; else debian "$1"; fi || return 1
  flags=(-O1 -g -std=gnu11 -Wall -Wextra "-I$include" "-I$out/include"
    -DCHOIR_OMIT_NET)
  $cc "${flags[@]}" -shared -fPIC -fvisibility=hidden dist/choir.c \
    -o "$to/choir.so" -lm -ldl || return 1
  $cc -O1 -w "-I$include" -DSQLITE_SHELL_INIT_PROC=choirShellInit \
    -c build/shell/shell.c -o "$to/shell.o" || return 1
  $cc "${flags[@]}" -DSQLITE_CORE dist/choir.c tests/shell/shell_init.c \
    "$to/shell.o" "$sqlite" -lm -ldl -lpthread -o "$to/shell" || return 1
  printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$start" "$to/shell" \
    >"$to/choir-shell-nonet"
  chmod +x "$to/choir-shell-nonet"
}

platform() { # platform NAME
  local to=$out/$1 without=() remote=remote/ status
  # Page deltas need glibc's liblz4, which musl cannot open.
  [ "$1" != musl ] || remote=remote.sqlite without=(--ignore=tests/sync --deselect
    'tests/index/test_index_make.py::test_a_push_puts_pending_rows_where_they_belong')
  build "$1" >"$to.build.log" 2>&1 || { tail -5 "$to.build.log"; return 1; }
  "$to/choir-shell-nonet" :memory: \
    "SELECT '$1: SQLite ' || sqlite_version() || ', kernels ' || vec_kernel()"
  CHOIR_SHELL=$to/choir-shell-nonet \
    build/venv/bin/python -m pytest -q -n "$(nproc)" -p no:cacheprovider \
    --ignore=tests/kern "${without[@]}" ${ARGS:-tests} 2>&1 | tee "$to/log" | tail -15
  status=${PIPESTATUS[0]}
  /usr/bin/python3 tests/platforms/exchange.py "$to/choir-shell-nonet" "$remote" || status=1
  return "$status"
}

tools/setup.sh && tests/shell/build.sh source && make -s all amalgamation || exit 1
mkdir -p "$out/include"
cp -rL /usr/include/{sqlite3.h,sqlite3ext.h,simde} "$out/include/"
failed=
for name in ${*:-i386 musl arm64 armhf s390x}; do
  mkdir -p "$out/$name"
  platform "$name" || failed+=" $name"
done
[ -z "$failed" ] || { echo "platforms: failed on$failed"; exit 1; }
