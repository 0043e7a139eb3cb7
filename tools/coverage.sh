#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs the cases, the C unit tests and the distance kernels on builds that count
# lines, and shows what ran (tools/coverage.py); `make coverage`.
#
# pytest runs without xdist here: its workers end without writing their counts.
# Two cases do not hold on such a build and are left out: the size in memory and
# the exported names.
set -u
cd "$(dirname "$0")/.." || exit 1
unset MAKEFLAGS MAKELEVEL
flags="--coverage -fprofile-update=atomic"
out=build/coverage
tools/setup.sh || exit 1
make -s BUILD=$out SO=$out/choir.so OPT=-O0 EXTRA_CFLAGS="$flags" all || exit 1
make -s BUILD=$out/core OPT=-O0 EXTRA_CFLAGS="$flags -DSQLITE_CORE" \
  $out/core/libchoir.a || exit 1
find $out -name '*.gcda' -delete

cases() { # cases FOLDER…
  CHOIR_SO=$PWD/$out/choir.so build/venv/bin/python -m pytest -q -p no:xdist \
    -k "not test_loading_costs_at_most and not test_the_surface_of_the_file" "$@" >$out/cases-"$(basename "$1")".log
}
cases tests/core tests/http tests/log tests/object tests/vec tests/search \
  tests/test_examples.py & first=$!
cases tests/embed tests/index tests/libsql tests/nats tests/qdrant tests/store \
  tests/sync tests/test_readme.py & second=$!
wait $first || echo "coverage: cases failed ($out/cases-core.log)"
wait $second || echo "coverage: cases failed ($out/cases-embed.log)"

for file in tests/unit/*_test.c; do
  name=$(basename "$file" .c) more=
  [ "$name" != fuzz_test ] ||
    more=$(find tests/fuzz -name '*.c' ! -name fuzz_main.c)
  # shellcheck disable=SC2086
  gcc -std=gnu11 -g -O0 -Iext -DSQLITE_CORE $flags -o $out/"$name" "$file" \
    $more $out/core/libchoir.a -lcmocka -lsqlite3 -lm -ldl -lpthread &&
    $out/"$name" >$out/"$name".log 2>&1 || echo "coverage: $name failed"
done
# shellcheck disable=SC2086
gcc -O0 $flags -o $out/kern_test tests/kern/kern_test.c $out/core/libchoir.a \
  -lsqlite3 -lm -ldl && $out/kern_test >$out/kern_test.log ||
  echo "coverage: kern_test failed"
tools/coverage.py $out --below 90
