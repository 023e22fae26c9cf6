#!/usr/bin/env bash
# Tells Spark which GPUs this machine has, by their numbers: {"name": "gpu", "addresses": ["0", "1"]}
# Spark runs it where a worker (standalone) or an executor (YARN, Kubernetes) starts. See docs/gpu.md.
set -euo pipefail

fail() { echo "gpus.sh: on $(uname -n): $1" >&2; exit 1; }

command -v nvidia-smi >/dev/null || fail "there is no nvidia-smi, which comes with NVIDIA's driver."
numbers=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>&1) || fail "nvidia-smi says: $numbers"
# Where it finds none it says so with status 0.
[[ $numbers =~ ^[0-9]+($'\n'[0-9]+)*$ ]] || fail "nvidia-smi says: $numbers"
printf '{"name": "gpu", "addresses": ["%s"]}\n' "${numbers//$'\n'/\", \"}"
