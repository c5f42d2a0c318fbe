#!/usr/bin/env bash
# Installs what is missing, trains the VAE and UniFluid, and evaluates them:
#
#   launch/quickstart.sh [CONFIG [WORKDIR [FLAG...]]]
#
# The defaults are experiments/quickstart.py and a folder of its name in runs/.
# Stop it with Ctrl-C and start it again as you like: it goes on where it was.
set -euo pipefail

if [[ "${1-}" == -h || "${1-}" == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  exit
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/launch/environment.sh" ''
config="${1:-$root/experiments/quickstart.py}"
file="${config%%.py:*}" # Arguments of a config may hold a path.
name="${file##*/}"
exec python -m unifluid_jax.quickstart --config="$config" \
  --workdir="${2:-$root/runs/${name%.py}}" "${@:3}"
