#!/bin/sh
# Builds the guest's program, for the machine type in GOARCH: static, without
# symbols, and without HTTP/2, which servers of repositories and metadata do not
# need and which is 340 kB.
#
#   build-guest.sh FILE
set -eu

cd "$(dirname "$0")/.."
CGO_ENABLED=0 exec "${GO:-go}" build -trimpath -ldflags='-s -w' -tags nethttpomithttp2 -o "$1" ./cmd/mica-guest
