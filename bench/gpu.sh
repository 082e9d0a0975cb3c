#!/usr/bin/env bash
# Measure labbench on a GPU: one command, under 9 minutes, without network.
#
#     bench/gpu.sh [PART ...]
#
# Each part writes one file to $OUT (default: bench/gpu-results); a part whose file exists is not measured again, so that
# a run that is cut continues where it stopped. At the end, all files are printed as one table. Exit status 0: every part
# is measured; 1: some are not, with the reason in the table; 2: there is no CUDA device, and nothing was measured. Where
# $OUT does not outlast a command, name the parts that are left.
#
# Needed: torch with CUDA, numpy, safetensors and threadpoolctl (`pip install --target FOLDER` elsewhere and PYTHONPATH
# will do). pytest with click, psutil, jax and nvidia-ml-py are used where they are installed.
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-bench/gpu-results}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" bench/gpu.py --out "$OUT" "$@"
