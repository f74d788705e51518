#!/usr/bin/env bash
# The GPU part of the benchmarks, on a bare machine: torch and a GPU, no network; videos are made, weights are random.
# Under 8 minutes.
#
#     [WHEELS=DIR] [PYTHON=python3] bench/gpu.sh
#
# DIR holds wheels of what requirements.txt names and that machine has not got.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
python=${PYTHON:-python3}
if [[ -n ${WHEELS:-} ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
# what only a GPU can show; first, since speed is worth nothing without it
if "$python" -c "import pytest" 2>/dev/null; then
    "$python" -m pytest -q -p no:cacheprovider tests/analysis/test_gpu.py
fi
timeout 240 "$python" -m bench --device cuda --clips 4 --repeat 16 --rounds 2 --no-plain --write \
    --models slowfast_r50_8x8 x3d_m mvit i3d_inception
timeout 180 "$python" -m bench --device cuda --clips 2 --rounds 1 --models slowfast_r50_8x8 i3d_inception
