#!/usr/bin/env bash
# Measure both stages at the paper's size on one large GPU, in under ten minutes. No network is needed.
#   bench/gpu.sh                 writes outputs/gpu.json, rewritten after each part
#   bench/gpu.sh --tiny true     tries the script on a CPU
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
test -x "$python" || python=python
mkdir -p outputs
exec "$python" -m bench.vlm --out outputs/gpu.json "$@"
