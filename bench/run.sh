#!/bin/bash
# Every measurement, one after the other; bench/README.md says what they mean.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/demo-assets.sh
echo "== sizes"
ls -l build/demo/mica.iso bin/mica-guest | awk '{print $5, $9}'
echo "== context"
bench/context.sh
echo "== machine"
bench/machine.sh
echo "== repositories"
bench/cvmfs.sh
echo "== boot"
bench/boot.sh "${BENCH_RUNS:-1}"
echo "== library"
go test -run '^$' -bench . -benchmem ./cvmfs/... ./internal/usercontext/... 2>/dev/null | grep -E '^(Benchmark|pkg)' || true
