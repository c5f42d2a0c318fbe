#!/usr/bin/env bash
# Installs what is missing, trains the VAE and UniFluid, and evaluates them:
#
#   launch/quickstart.sh [CONFIG [WORKDIR]]
#
# The defaults are experiments/quickstart.py and runs/quickstart. Stop it with
# Ctrl-C and start it again as you like: it goes on where it was.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/launch/environment.sh" ''
exec python -m unifluid_jax.quickstart \
  --config="${1:-$root/experiments/quickstart.py}" \
  --workdir="${2:-$root/runs/quickstart}"
