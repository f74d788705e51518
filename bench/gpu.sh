#!/usr/bin/env bash
# The GPU part of the benchmarks, on a bare machine: torch and a GPU, no network; videos are made, weights are random.
# Under 8 minutes.
#
#     [WHEELS=DIR] [PYTHON=python3] bench/gpu.sh
#
# It needs, beside torch: numpy scipy pandas pyarrow matplotlib jinja2 pyyaml opencv-python-headless pillow einops
# safetensors tqdm, pytest for the tests, and omegaconf and av, which few machines have. DIR holds wheels of what is
# missing there; those of the last two (36 MB) are fetched elsewhere, for Python 3.12 say, with
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#         --platform manylinux_2_28_x86_64 --dest DIR omegaconf==2.3.1 av==18.1.0
#     pip wheel --no-deps --wheel-dir DIR antlr4-python3-runtime==4.9.3    # omegaconf's; there is no wheel of it
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
    timeout 90 "$python" -m pytest -q -p no:cacheprovider tests/analysis/test_gpu.py
fi
# passes last so long that what it takes to begin weighs little, however fast the GPU is
timeout 250 "$python" -m bench --device cuda --clips 4 --seconds 5 --rounds 2 --no-plain --write \
    --models slowfast_r50_8x8 x3d_m mvit i3d_inception
timeout 140 "$python" -m bench --device cuda --clips 8 --seconds 3 --rounds 1 --write \
    --models slowfast_r50_8x8 i3d_inception
