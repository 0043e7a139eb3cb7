#!/bin/bash
# SPDX-License-Identifier: MIT
# Proves the house rules; `make check`. One line a rule, every rule is tried,
# the exit status says whether all hold. `check.sh lint` needs no build.
set -u
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-/usr/bin/python3}
build=build/check
mkdir -p $build
failed=0
WARN="-std=gnu11 -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Werror"

rule() { # rule NAME COMMAND…: runs it, shows its output only when it fails
  local name=$1 start=$EPOCHREALTIME out
  shift
  if out=$("$@" 2>&1); then
    verdict=ok
  else
    verdict=FAIL
    failed=1
  fi
  awk -v n="$name" -v v=$verdict -v a="$start" -v b="$EPOCHREALTIME" \
    'BEGIN { printf "check: %-14s %-4s %5.1f s\n", n, v, b - a }'
  [ $verdict = ok ] || printf '%s\n' "$out" | head -60 | sed 's/^/    /'
}

need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null || {
    echo "$1 is missing; run tools/setup.sh or apt-get install $2"
    return 1
  }
}

sources() { find ext -name '*.[ch]' -o -name '*.inc' | sort; }

format() {
  need clang-format-14 clang-format-14 &&
    sources | xargs clang-format-14 --dry-run -Werror
}

migrations() { [ ! -e sql/CHECKSUMS ] || $PYTHON tools/embed_sql.py --check; }

static_analysis() {
  mkdir -p $build/cppcheck
  need cppcheck cppcheck && cppcheck -q -j2 --std=c11 -Iext \
    --cppcheck-build-dir=$build/cppcheck --inline-suppr --error-exitcode=1 \
    --enable=warning,performance,portability ext
}

warnings() { # warnings COMPILER: every source, nothing written
  need "$1" "$1" || return 1
  printf '%s\n' ext/*.c ext/*/*.c build/gen_*.c |
    xargs -P2 -n4 "$1" $WARN -O1 -fPIC -fsyntax-only -Iext
}

in_tests() { # the C of tests, against the headers of today
  printf '%s\n' tests/unit/*.c tests/fuzz/*.c |
    xargs -P2 -n8 gcc -std=gnu11 -Iext -DSQLITE_CORE -Wall -Wextra -Werror \
      -fsyntax-only
}

merged() { # the amalgamation, as an extension and linked statically
  make -s amalgamation || return 1
  local flag
  for flag in "" -DSQLITE_CORE "-DSQLITE_CORE -DCHOIR_OMIT_NET"; do
    gcc $WARN -O0 -fPIC -fvisibility=hidden $flag -c dist/choir.c \
      -o $build/choir.o || return 1
    [ -n "$flag" ] || gcc -shared $build/choir.o -o $build/choir.so -lm \
      -Wl,--no-undefined || return 1
  done
  clang-14 $WARN -fsyntax-only dist/choir.c || return 1
  clang-14 $WARN -DSQLITE_CORE -fsyntax-only dist/choir.c || return 1
  local names
  names=$(nm -D --defined-only $build/choir.so | awk '{print $3}' | xargs)
  [ "$names" = "sqlite3_choir_init sqlite3_choir_readonly_init \
sqlite3_extension_init" ] || { echo "dist/choir.c exports: $names"; return 1; }
}

hardened() { # what the link flags promise
  readelf -lW choir.so | grep -q GNU_RELRO || { echo "no RELRO"; return 1; }
  readelf -dW choir.so | grep -q BIND_NOW || { echo "no BIND_NOW"; return 1; }
  ! readelf -lW choir.so | grep -E 'GNU_STACK.*E ' || return 1
  local libs
  libs=$(readelf -dW choir.so | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | xargs)
  [ "$libs" = "libm.so.6 libc.so.6" ] || [ "$libs" = libc.so.6 ] ||
    { echo "choir.so is linked with $libs"; return 1; }
}

builds() { # the other two ways to have libcurl: linked, and not at all
  local curl so
  for curl in linked none; do
    so=build/curl-$curl/choir.so
    make -s -j"$(nproc)" CURL=$curl OPT=-O0 SO=$so all >$build/curl.log 2>&1 ||
      { tail -20 $build/curl.log; return 1; }
  done
  readelf -dW build/curl-linked/choir.so | grep -q 'NEEDED.*libcurl\.so' ||
    { echo "CURL=linked is not linked with libcurl"; return 1; }
  [ "$(sqlite3 :memory: ".load $so" "SELECT group_concat(DISTINCT name)
    FROM pragma_function_list WHERE name IN ('http_headers', 'jsonrpc',
    's3_get')")" = s3_get ] ||
    { echo "CURL=none has functions of the network, or lacks s3_get"; return 1; }
  CHOIR_SO=$PWD/build/curl-linked/choir.so build/venv/bin/python -m pytest -q \
    -p no:cacheprovider tests/http/test_http_get.py tests/http/test_http_tls.py
}

rule format format
rule layers $PYTHON tools/layers.py ext
rule limits $PYTHON tools/lint.py .
rule migrations migrations
rule docs $PYTHON tools/docs.py check docs/reference
rule requirements $PYTHON tools/requirements.py .
if [ "${1:-}" != lint ]; then
  rule surface $PYTHON tools/surface.py choir.so
  rule hardening hardened
  rule clang warnings clang-14
  rule gcc warnings gcc
  rule tests in_tests
  rule cppcheck static_analysis
  rule amalgamation merged
  rule builds builds
fi
[ $failed = 0 ] && echo "check: all rules hold" || echo "check: FAILED"
exit $failed
