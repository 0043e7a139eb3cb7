# SPDX-License-Identifier: MIT
# Sourced: apt-get with lists of its own, for sources and for packages of other
# processors; what is installed here does not change.
#
#   apt_own DIR deb-src|deb ARCH    makes ${apt[@]}, the lists are in DIR

apt_own() {
  local parts=$1/parts
  mkdir -p "$parts" "$1"/{lists/partial,cache/archives/partial}
  if [ -f /etc/apt/sources.list.d/debian.sources ]; then
    sed "s/^Types:.*/Types: $2/" /etc/apt/sources.list.d/debian.sources \
      >"$parts/debian.sources"
  fi
  if [ -s /etc/apt/sources.list ]; then
    sed -n "s/^deb \(.*debian.*\)/$2 \1/p" /etc/apt/sources.list \
      >"$parts/debian.list"
  fi
  apt=(apt-get -qq -o Dir::Etc::SourceList=/dev/null -o APT::Sandbox::User=root
    -o Dir::Etc::SourceParts="$parts" -o Dir::State::Lists="$1/lists"
    -o Dir::Cache="$1/cache" -o APT::Architectures::="$3")
  "${apt[@]}" update
}
