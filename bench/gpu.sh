#!/usr/bin/env bash
# Run the GPU benchmarks in less than 8 minutes on a machine with torch and a GPU, but without internet access. Videos
# are synthetic, weights are random.
#
#     [WHEELS=DIR] [PYTHON=python3] bench/gpu.sh
#
# Needs torch, numpy, scipy, pandas, pyarrow, matplotlib, jinja2, pyyaml, opencv-python-headless, pillow, einops,
# safetensors, tqdm and packaging; pytest for the tests; and hydra-core, omegaconf, lazy-loader and av, which few
# machines have. DIR holds the wheels of missing packages. To fetch the last four (36 MB) elsewhere, for Python 3.12:
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#         --platform manylinux_2_28_x86_64 --dest DIR hydra-core==1.3.8 omegaconf==2.3.1 lazy-loader==0.6 av==18.1.0
#     pip wheel --no-deps --wheel-dir DIR antlr4-python3-runtime==4.9.3    # needed by omegaconf; has no wheel
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
# Tests that need a GPU run first, because the speed of wrong code is meaningless.
if "$python" -c "import pytest" 2>/dev/null; then
    timeout 90 "$python" -m pytest -q -p no:cacheprovider tests/analysis/run/test_gpu.py
fi
# --seconds makes the passes so long that the start-up time is negligible on any GPU.
timeout 250 "$python" -m bench --device cuda --clips 4 --seconds 5 --rounds 2 --no-baseline --write \
    --models slowfast_r50_8x8 x3d_m mvit i3d_inception
timeout 140 "$python" -m bench --device cuda --clips 8 --seconds 3 --rounds 1 --write \
    --models slowfast_r50_8x8 i3d_inception
