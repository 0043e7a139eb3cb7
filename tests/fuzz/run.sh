#!/bin/sh
# SPDX-License-Identifier: MIT
# Fuzzes with clang's libFuzzer, ASan and UBSan: run.sh [SECONDS=60]
# What it finds is put into tests/fuzz/ltx and run again by the unit tests.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
mkdir -p build/fuzz/found
make -s core
clang-14 -std=gnu11 -g -O1 -DSQLITE_CORE -Iext \
  -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
  -o build/fuzz/ltx tests/fuzz/ltx_fuzz.c ext/sync/sync_ltx.c \
  ext/core/core_err.c ext/core/core_buf.c ext/core/core_hash.c \
  ext/core/core_lib.c build/core/libchoir.a -lsqlite3 -lm -ldl
exec build/fuzz/ltx -max_total_time="$seconds" -max_len=8192 \
  -artifact_prefix=build/fuzz/found/ build/fuzz/found tests/fuzz/ltx
