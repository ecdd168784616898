#!/usr/bin/env bash
# Builds native/build/moor.node, and native/build/pause, when a source, this script or Node's headers are newer than it. Safe to run at any time:
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
if [ -f "$output" ] && [ -f build/pause ] && [ -z "$(find build.sh pause/pause.c ./*.cc ./*.h "$headers/node_api.h" "$headers/node_version.h" -newer "$output")" ]; then
  exit 0
fi
mkdir -p build
partial="$(mktemp build/moor.node.XXXXXX)"
trap 'rm -f "$partial" "$partial.pause"' EXIT
g++ -O2 -shared -fPIC -std=c++17 -Wall -Wextra -Werror -fno-exceptions -fno-rtti -fvisibility=hidden \
  -D_GNU_SOURCE -DNAPI_VERSION=8 -isystem "$headers" -o "$partial" ./*.cc
chmod 0755 "$partial"
# The program that holds pods' namespaces; see there.
gcc -Os -static -nostdlib -nostartfiles -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -Wall -Wextra -Werror \
  -Wl,--build-id=none,-z,noseparate-code -s -o "$partial.pause" pause/pause.c
mv -f "$partial.pause" build/pause
mv -f "$partial" "$output"
