#!/bin/bash
# SPDX-License-Identifier: MIT
# memcheck over the C unit tests, the fuzz corpora among them, and over every
# example of the documentation in SQLite's shell: reads of what nobody wrote,
# which AddressSanitizer does not see, and leaks. `make valgrind`.
#
#   valgrind.sh           all; 0 errors, 0 bytes definitely lost
#   valgrind.sh NAME…     one of tests/unit by its file's name, or examples
#
# What it says is in build/valgrind/NAME.txt.
set -u
cd "$(dirname "$0")/.." || exit 1
unset MAKEFLAGS MAKELEVEL
root=$PWD out=$PWD/build/valgrind failed=0
mkdir -p "$out/home"
export HOME=$out/home
unset XDG_STATE_HOME XDG_CACHE_HOME XDG_CONFIG_HOME

run() { # run NAME INPUT COMMAND…
  local name=$1 input=$2 start=$SECONDS verdict=ok
  shift 2
  timeout 3000 valgrind -q --error-exitcode=99 --leak-check=full \
    --errors-for-leak-kinds=definite --show-leak-kinds=definite \
    --suppressions="$root/tests/valgrind.supp" \
    --log-file="$out/$name.txt" "$@" <"$input" >"$out/$name.log" 2>&1
  case $name:$? in
    *:0 | examples:1) ;; # the shell says so when a statement failed
    *) verdict=FAIL failed=1 ;;
  esac
  printf 'valgrind: %-18s %-4s %4d s\n' "$name" $verdict $((SECONDS - start))
  [ $verdict = ok ] || { head -40 "$out/$name.txt"; tail -5 "$out/$name.log"; }
}

# A database in memory for each example, one shell for all of them: an error is
# an answer like any other.
examples() {
  make -s all build/oom/cases.sql || exit 1
  awk -v so="$root/choir" '/^-- case / {
      print ".open :memory:"; print ".load " so
      if ($0 !~ /@empty/) print "SELECT choir_init();" }
    { print }' build/oom/cases.sql >"$out/examples.sql"
  cd "$out/home" && run examples "$out/examples.sql" sqlite3 -init /dev/null
  cd "$root" || exit 1
}

[ $# -gt 0 ] || set -- $(basename -s .c tests/unit/*_test.c) examples
for name in "$@"; do
  if [ "$name" = examples ]; then
    examples
  else
    make -s build/unit/"$name" || exit 1
    FUZZ_MS=0 run "$name" /dev/null build/unit/"$name"
  fi
done
[ $failed = 0 ] && echo "valgrind: $# programs, no errors, no leaks"
exit $failed
