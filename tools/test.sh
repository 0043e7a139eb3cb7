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
failed=0 passed=0 skipped=0 summary=()
python=build/venv/bin/python

stage() { # stage NAME WHAT COMMAND…
  local name=$1 what=$2 start=$SECONDS status line
  shift 2
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  case "$name:$pattern" in kern:?* | oom:?* | hosts:?*) return 0 ;; esac
  echo "== $name: $what"
  "$@" </dev/null 2>&1 | tee $log/$name.log
  status=${PIPESTATUS[0]}
  line=$(grep -v '^ *$' $log/$name.log | tail -1 | sed 's/^=* *//; s/ *=*$//')
  if [ "$status" = 77 ]; then
    skipped=$((skipped + 1)) status=skip
    [ "${CHOIR_REQUIRE_ALL:-}" != 1 ] || { failed=$((failed + 1)) status=FAIL; }
  elif [ "$status" = 0 ]; then
    passed=$((passed + 1)) status=ok
  else
    failed=$((failed + 1)) status=FAIL
  fi
  summary+=("$(printf '%-9s %-4s %4d s  %s' "$name" $status \
    $((SECONDS - start)) "$line")")
}

skip() { echo "skipped: $*"; return 77; }

cases() { # cases ENV… : the SQL-level cases, two at a time
  local status
  # tests/kern is the stage of that name.
  env "$@" $python -m pytest -q -n 2 --dist load ${pattern:+-k "$pattern"} \
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
    make -s build/unit/"$name" && build/unit/"$name" || status=1
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

shell() { # shell NAME: cases on build/shell/NAME
  tests/shell/build.sh &&
    cases CHOIR_REPEAT=1 CHOIR_DRIVER=shell CHOIR_SHELL="$PWD/build/shell/$1"
}

# The whole of the cases run under both sanitizers in the static shell, which
# has leaks with their stacks (nothing is unloaded, and Python itself leaks).
# What needs the connection in its own process runs inside Debian's Python.
asan() {
  make -s asan || return 1
  echo "-- the amalgamation in the shell, with leaks"
  UBSAN_OPTIONS=print_stacktrace=1 CHOIR_SANITIZED=1 \
    ASAN_OPTIONS=allocator_may_return_null=1:exitcode=23 \
    shell choir-shell-asan || return 1
  echo "-- choir.so inside Python"
  only_marked=inprocess \
    cases CHOIR_REPEAT=1 LD_PRELOAD="$(gcc -print-file-name=libasan.so)" \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1 \
    UBSAN_OPTIONS=print_stacktrace=1 CHOIR_SANITIZED=1 \
    CHOIR_SO="$PWD/build/asan/choir.so"
}

oom() {
  make -s build/oom/oom build/oom/cases.sql && build/oom/oom build/oom/cases.sql
}

hosts() {
  CHOIR_REQUIRE_ALL= $python tests/hosts/run.py # make hosts wants them all
}

tools/setup.sh && make all || exit 1
stage sqlite "the cases on SQLite $($python -c \
  'import sqlite3; print(sqlite3.sqlite_version)') in Debian's Python" cases
stage newest "the cases on SQLite $($python -c \
  'import apsw; print(apsw.sqlite_lib_version())') in apsw" \
  cases CHOIR_REPEAT=1 CHOIR_DRIVER=apsw
stage unit "C unit tests" units
stage kern "distance kernels, tier by tier" kern
stage asan "the cases on a shell linked from the amalgamation, under\
 AddressSanitizer and UBSan" asan
stage omit-net "the same with CHOIR_OMIT_NET, without sanitizers" \
  shell choir-shell-nonet
stage oom "every function with every allocation failing" oom
stage hosts "hosts that are here" hosts

echo
printf 'test: %s\n' "${summary[@]}"
echo "test: $passed stages passed, $failed failed, $skipped skipped in" \
  "$SECONDS s"
[ $failed = 0 ]
