#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs what is missing, and only that: quick when everything is there.
#
#   setup.sh              everything for `make check` and `make test`
#   setup.sh build        what `make` and `make demo` need
#   setup.sh only PKG…    these Debian packages (make hosts)
#
# Debian packages are installed by root or through sudo; without either their
# names are printed. What comes from PyPI goes into build/venv.
set -u
cd "$(dirname "$0")/.." || exit 1

BUILD="gcc libc6-dev make python3 sqlite3 libsqlite3-dev libsimde-dev
  libcurl4-openssl-dev libssl-dev"
TEST="clang-14 clang-format-14 cppcheck binutils libcmocka-dev ca-certificates
  xz-utils dpkg-dev python3-venv python3-pytest python3-hypothesis
  python3-numpy python3-pytest-xdist gcc-aarch64-linux-gnu
  libc6-dev-arm64-cross qemu-user clang lld wasi-libc nodejs ceph-common
  ceph-mon ceph-osd radosgw libclang-rt-14-dev nats-server libnats-dev
  python3-cryptography openssl"

packages() {
  local missing=() p
  command -v dpkg-query >/dev/null || {
    echo "setup: not Debian; needed here by other names: $*"
    return 0
  }
  for p in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null)" = "ii " ] ||
      missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local root=()
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && command -v sudo >/dev/null; }
    then
      echo "setup: missing packages; as root: apt-get install ${missing[*]}" >&2
      return 1
    fi
    root=(sudo)
  fi
  echo "setup: apt-get install ${missing[*]}"
  local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  local log=build/setup.log
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >$log 2>&1 </dev/null ||
    { "${apt[@]}" update >>$log 2>&1 </dev/null &&
      "${apt[@]}" install --no-install-recommends "${missing[@]}" >>$log 2>&1 </dev/null; } ||
    { tail -5 $log >&2; echo "setup: apt-get failed ($log)" >&2; return 1; }
}

venv() { # Debian's Python: others cannot load extensions
  local want have=build/venv/requirements
  want=$(sha256sum tests/requirements.txt)
  [ "$(cat $have 2>/dev/null)" = "$want" ] && return 0
  echo "setup: build/venv from tests/requirements.txt"
  rm -f $have
  /usr/bin/python3 -m venv --system-site-packages build/venv &&
    build/venv/bin/python -m pip install -q --disable-pip-version-check \
      --upgrade --ignore-installed -r tests/requirements.txt </dev/null &&
    echo "$want" >$have
}

mkdir -p build
exec 9>build/setup.lock
flock 9
case "${1:-all}" in
  build) packages $BUILD ;;
  only) shift && packages "$@" ;;
  all) packages $BUILD $TEST && venv ;;
  *) sed -n '3,12s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
