#!/usr/bin/env bash
# Builds native/build/moor.node when a source, this script or Node's headers are newer than it. Safe to run at any time:
# the result is renamed into place, so that running processes keep the file they have mapped.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
case "$(uname -m)" in
  x86_64) arch=x64 ;;
  aarch64) arch=arm64 ;;
  *) echo "moor: no Node build for $(uname -m)" >&2; exit 1 ;;
esac
headers="../node_modules/node-linux-$arch/include/node"
output=build/moor.node
if [ ! -f "$headers/node_api.h" ]; then
  echo "moor: $headers is missing; run npm ci first" >&2
  exit 1
fi
if [ -f "$output" ] && [ -z "$(find build.sh ./*.cc ./*.h "$headers/node_api.h" "$headers/node_version.h" -newer "$output")" ]; then
  exit 0
fi
mkdir -p build
partial="$(mktemp build/moor.node.XXXXXX)"
trap 'rm -f "$partial"' EXIT
g++ -O2 -shared -fPIC -std=c++17 -Wall -Wextra -Werror -fno-exceptions -fno-rtti -fvisibility=hidden \
  -D_GNU_SOURCE -DNAPI_VERSION=8 -isystem "$headers" -o "$partial" ./*.cc
chmod 0755 "$partial"
mv -f "$partial" "$output"
