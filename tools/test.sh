#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs what the tests need and runs them all; `make test`.
#
#   test.sh               every stage
#   test.sh STAGE         one of: sqlite newest unit kern asan omit-net oom hosts
#   test.sh 'PATTERN'     test cases whose name matches (pytest -k), and C unit
#                         tests whose file name does
#
# A stage that cannot run says why; CHOIR_REQUIRE_ALL=1 makes that a failure.
# unit, kern and oom go on beside the others and are shown at the end.
# Logs: build/test/<stage>.log.
set -u
cd "$(dirname "$0")/.." || exit 1
unset MAKEFLAGS MAKELEVEL
STAGES="sqlite newest unit kern asan omit-net oom hosts"
pattern=${1:-}
only=
case " $STAGES " in *" ${pattern:-none} "*) only=$pattern pattern= ;; esac

log=build/test
mkdir -p $log
rm -f $log/*.result
python=build/venv/bin/python
jobs=$(nproc)

stage() { # stage NAME WHAT COMMAND…
  local name=$1 what=$2 start=$SECONDS status line
  shift 2
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  case "$name:$pattern" in kern:?* | oom:?* | hosts:?*) return 0 ;; esac
  echo "== $name: $what"
  "$@" </dev/null 2>&1 | tee $log/$name.log
  status=${PIPESTATUS[0]}
  line=$(grep -v '^ *$' $log/$name.log | tail -1 | sed 's/^=* *//; s/ *=*$//')
  case "$status:${CHOIR_REQUIRE_ALL:-}" in
    0:*) status=ok ;;
    77:1) status=FAIL ;;
    77:*) status=skip ;;
    *) status=FAIL ;;
  esac
  printf '%-9s %-4s %4d s  %s\n' "$name" $status $((SECONDS - start)) "$line" \
    >$log/$name.result
}

skip() { echo "skipped: $*"; return 77; }

cases() { # cases ENV… : the SQL-level cases, one more at a time than processors
  local status
  # tests/kern is the stage of that name.
  env "$@" $python -m pytest -q -n $((jobs + 1)) --dist load \
    --durations=12 --durations-min=4 ${pattern:+-k "$pattern"} \
    ${only_marked:+-m "$only_marked"} --ignore=tests/kern tests
  status=$?
  # 5: the pattern matches no case here
  [ $status = 5 ] && [ -n "$pattern" ] && status=0
  return $status
}

units() {
  local status=0 n=0 name file
  for file in tests/unit/*_test.c; do
    [ -e "$file" ] || continue
    name=$(basename "$file" .c)
    [[ -z $pattern || $name == *$pattern* ]] || continue
    make -s -j"$jobs" build/unit/"$name" && build/unit/"$name" || status=1
    n=$((n + 1))
  done
  [ $status = 0 ] && echo "$n unit test programs passed" ||
    echo "unit tests failed"
  return $status
}

# The distance kernels this machine can run, then those it emulates.
kern() {
  make -s kern && make -s foreign
}

# What the cases under sanitizers and in the shell run on. Both lanes below come
# here: the first one builds, the other waits and finds it built.
built() {
  flock $log/built.lock sh -c "make -s -j$jobs asan && tests/shell/build.sh"
}

shell() { # shell NAME: cases on build/shell/NAME
  built && cases CHOIR_REPEAT=1 CHOIR_DRIVER=shell CHOIR_SHELL="$PWD/build/shell/$1"
}

# The whole of the cases run under both sanitizers in the static shell, which
# has leaks with their stacks (nothing is unloaded, and Python itself leaks).
# What needs the connection in its own process runs inside Debian's Python.
asan() {
  echo "-- the amalgamation in the shell, with leaks"
  UBSAN_OPTIONS=print_stacktrace=1 CHOIR_SANITIZED=1 \
    ASAN_OPTIONS=allocator_may_return_null=1:exitcode=23 \
    shell choir-shell-asan || return 1
  echo "-- choir.so loaded, loaded again and closed by a host in C"
  make -s build/unit/anchor_test &&
    env LD_PRELOAD="$(gcc -print-file-name=libasan.so)" \
      ASAN_OPTIONS=detect_leaks=0 CHOIR_SO="$PWD/build/asan/choir.so" \
      build/unit/anchor_test || return 1
  echo "-- choir.so inside Python"
  only_marked=inprocess \
    cases CHOIR_REPEAT=1 LD_PRELOAD="$(gcc -print-file-name=libasan.so)" \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1 \
    UBSAN_OPTIONS=print_stacktrace=1 CHOIR_SANITIZED=1 \
    CHOIR_SO="$PWD/build/asan/choir.so"
}

oom() {
  make -s -j"$jobs" build/oom/oom build/oom/cases.sql && $python tests/oom/run.py
}

hosts() {
  CHOIR_REQUIRE_ALL= $python tests/hosts/run.py # make hosts wants them all
}

# Most cases wait for servers now and then, so what compiles and computes goes on
# beside them.
beside() {
  [ -n "$only$pattern" ] || built >$log/built.log 2>&1 # said again where needed
  stage unit "C unit tests" units
  stage kern "distance kernels, tier by tier" kern
  stage oom "every function with every allocation failing" oom
}

trap 'trap - INT TERM; kill 0' INT TERM
tools/setup.sh && make -j"$jobs" all || exit 1
beside >$log/beside.log 2>&1 &
beside=$!
stage sqlite "the cases on SQLite $($python -c \
  'import sqlite3; print(sqlite3.sqlite_version)') in Debian's Python" cases
stage newest "the cases on SQLite $($python -c \
  'import apsw; print(apsw.sqlite_lib_version())') in apsw" \
  cases CHOIR_REPEAT=1 CHOIR_DRIVER=apsw
stage asan "the cases on a shell linked from the amalgamation, under\
 AddressSanitizer and UBSan" asan
stage omit-net "the same with CHOIR_OMIT_NET, without sanitizers" \
  shell choir-shell-nonet
wait $beside
cat $log/beside.log
stage hosts "hosts that are here" hosts

count() { cat $log/*.result | grep -c "^[^ ]*  *$1 "; }
echo
for name in $STAGES; do
  [ ! -e $log/"$name".result ] || sed 's/^/test: /' $log/"$name".result
done
echo "test: $(count ok) stages passed, $(count FAIL) failed, $(count skip)" \
  "skipped in $SECONDS s"
[ "$(count ok)" -gt 0 ] && [ "$(count FAIL)" = 0 ]
