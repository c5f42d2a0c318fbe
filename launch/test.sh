#!/usr/bin/env bash
# Checks everything; arguments go to pytest:
#
#   launch/test.sh                  all tests
#   launch/test.sh -m 'not slow'    the fast ones
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
source launch/environment.sh test
ruff check .
ruff format --check .
mypy
shellcheck --external-sources launch/*.sh .ci/run
lint-imports
exec python -m pytest -q -n 2 --dist worksteal "$@"
