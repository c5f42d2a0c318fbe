#!/usr/bin/env bash
# Makes the environment, .venv, and trains nothing:
#
#   launch/install.sh [EXTRAS]
#
# EXTRAS are those of setup.py, separated by commas, such as demo,convert.
set -euo pipefail

if (($# > 1)) || [[ "${1:-}" == -* ]]; then
  echo "usage: $0 [EXTRAS], such as demo,convert" >&2
  exit 2
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/launch/environment.sh" "${1:-}"
echo "The environment is ready. To use it in this shell:"
echo "  cd $(printf %q "$root") && source .venv/bin/activate"
