#!/bin/bash
# All that has to be seen on a machine with a GPU, in one command, in less than eight minutes:
#
#     benchmarks/gpu.sh                       # on a GPU; tables in $OUT, if that is set, and here
#     benchmarks/gpu.sh --device cpu --tiny   # the same at a tiny size, to see that it runs
#
# It needs no network, no files, and of packages torch, torchvision, timm, transformers, accelerate,
# safetensors, pandas, scikit-learn, seaborn and tensorboard; avkit need not be installed.
# PYTHON=/somewhere/bin/python names an interpreter. `--help` says the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_torch() { command -v "$1" >/dev/null && "$1" -c "import importlib.util as u, sys; sys.exit(not u.find_spec('torch'))"; }
for found in "${PYTHON:-}" python3 python .venv/bin/python; do
  if [ -n "$found" ] && has_torch "$found"; then break; fi
  if [ -n "$found" ] && [ "$found" = "${PYTHON:-}" ]; then
    echo "gpu.sh: $found has no torch: PYTHON has to name an interpreter that has it" >&2
    exit 2
  fi
  found=
done
if [ -z "$found" ]; then
  echo "gpu.sh: no Python here has torch: name one that has it, PYTHON=/somewhere/bin/python" >&2
  exit 2
fi

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 AVKIT_NUMERICS=fast
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false CUBLAS_WORKSPACE_CONFIG=:4096:8
exec "$found" benchmarks/gpu.py "$@"
