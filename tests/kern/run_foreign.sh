#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs tests/kern/kern_test.c where this machine cannot run it natively:
# AVX-512 through emulated intrinsics, NEON under qemu-user, WebAssembly SIMD
# in node. Prints which tiers were executed; a tool that is missing is named,
# and is a failure when CHOIR_REQUIRE_ALL=1.
#
# Debian: libsimde-dev gcc-aarch64-linux-gnu qemu-user clang lld wasi-libc nodejs
set -eu
cd "$(dirname "$0")/../.."
out=${BUILD:-build}/foreign
mkdir -p "$out"
src="ext/kern/*.c tests/kern/kern_test.c"
failed=0

missing() {
  echo "kern: $1 skipped: $2 not found"
  [ "${CHOIR_REQUIRE_ALL:-0}" = 1 ] && failed=1
  return 0
}

run() { # run LABEL COMMAND...
  label=$1
  shift
  echo "kern: $label"
  "$@" || { echo "kern: $label FAILED"; failed=1; }
}

# AVX-512, emulated; compiled natively by every ordinary build.
if [ "$(uname -m)" = x86_64 ] && grep -q avx2 /proc/cpuinfo; then
  ${CC:-gcc} -O2 -DKERN_EMULATE -Itests/kern -mavx2 -mfma -mf16c -Wno-psabi \
    $src -o "$out/kern_emulated" -lm
  run "AVX-512 by emulation" "$out/kern_emulated"
else
  missing "AVX-512 by emulation" "an x86-64 processor with AVX2"
fi

# NEON.
if command -v aarch64-linux-gnu-gcc >/dev/null &&
  command -v qemu-aarch64 >/dev/null; then
  # Only simde is wanted from /usr/include, which belongs to this machine.
  mkdir -p "$out/include"
  ln -sfn /usr/include/simde "$out/include/simde"
  aarch64-linux-gnu-gcc -O2 -static -isystem "$out/include" $src \
    -o "$out/kern_aarch64" -lm
  run "aarch64 under qemu" qemu-aarch64 "$out/kern_aarch64"
else
  missing NEON "aarch64-linux-gnu-gcc or qemu-aarch64"
fi

# WebAssembly.
clang=$(command -v clang-14 || command -v clang || true)
wasmld=$(command -v wasm-ld-14 || command -v wasm-ld || true)
if [ -n "$clang" ] && [ -n "$wasmld" ] && [ -d /usr/include/wasm32-wasi ] &&
  command -v node >/dev/null; then
  mkdir -p "$out/include"
  ln -sfn /usr/include/simde "$out/include/simde"
  objects=
  for f in $src; do
    o=$out/$(basename "$f" .c).wasm.o
    "$clang" --target=wasm32-wasi -O2 -msimd128 -fno-builtin-printf \
      -isystem /usr/include/wasm32-wasi -isystem "$out/include" \
      -c -o "$o" "$f"
    objects="$objects $o"
  done
  "$wasmld" -o "$out/kern.wasm" /usr/lib/wasm32-wasi/crt1.o $objects \
    -L/usr/lib/wasm32-wasi -lc -lm
  run "WebAssembly SIMD in node" \
    node --no-warnings tests/kern/run_wasi.js "$out/kern.wasm"
else
  missing WebAssembly "clang, wasm-ld, wasi-libc or node"
fi
exit $failed
