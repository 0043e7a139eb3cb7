#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs fuzz targets one after the other; `make fuzz`.
#
#   fuzz.sh TARGET…        SECONDS_EACH seconds each (20); 0: what is kept,
#                          once
#   fuzz.sh merge TARGET…  what a run found that is new goes into tests/fuzz/
#                          corpus, as few inputs as reach the same
#
# What a run finds on its way is kept in build/fuzz/corpus-TARGET; an input on
# which a target does not hold is left as build/fuzz/TARGET-crash-… and is run
# again by build/fuzz/TARGET FILE.
set -u
cd "$(dirname "$0")/.." || exit 1
export ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1
failed=0 total=0 count=0
limit=-max_total_time=${SECONDS_EACH:-20}
[ "$limit" != -max_total_time=0 ] || limit=-runs=0
merge=
[ "${1:-}" != merge ] || { merge=1; shift; }

for t in "$@"; do
  own=build/fuzz/corpus-$t kept=tests/fuzz/corpus/$t
  mkdir -p "$own" "$kept"
  if [ -n "$merge" ]; then
    small=build/fuzz/small-$t
    rm -rf "$small" && mkdir "$small"
    build/fuzz/"$t" -merge=1 -max_len=4096 -rss_limit_mb=4096 "$small" \
      "$kept" "$own" >build/fuzz/"$t".log 2>&1 || { failed=1; continue; }
    # Those with a name of their own stay; then the 60 smallest, up to 20 KB.
    find "$kept" -type f -regex '.*/[0-9a-f]+' -delete
    named=$(cd "$kept" && sha1sum -- * 2>/dev/null)
    size=0
    while read -r n f; do
      size=$((size + n))
      [ $size -gt 20000 ] || grep -q "^$f " <<<"$named" ||
        cp "$small/$f" "$kept/$(cut -c1-12 <<<"$f")"
    done < <(cd "$small" && find . -type f -printf '%s %P\n' | sort -n | head -60)
    echo "merge: $t $(find "$kept" -type f | wc -l) inputs"
    continue
  fi
  if build/fuzz/"$t" $limit -max_len=8192 \
      -timeout=60 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 \
      -artifact_prefix=build/fuzz/"$t"- "$own" "$kept" \
      >build/fuzz/"$t".log 2>&1; then
    n=$(sed -n 's/.*number_of_executed_units: *//p' build/fuzz/"$t".log)
    printf 'fuzz: %-14s %10d runs\n' "$t" "${n:-0}"
    total=$((total + ${n:-0})) count=$((count + 1))
  else
    printf 'fuzz: %-14s FAILED (build/fuzz/%s.log)\n' "$t" "$t"
    grep -E 'ERROR|SUMMARY|not: |runtime error' build/fuzz/"$t".log | head -5
    failed=1
  fi
done
[ -n "$merge" ] ||
  echo "fuzz: $count targets held for $total runs, ${SECONDS_EACH:-20} s each"
exit $failed
