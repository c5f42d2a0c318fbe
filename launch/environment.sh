# shellcheck shell=bash
# Sourced by the other scripts: an up-to-date .venv in the checkout, first in
# PATH; the checkout in PYTHONPATH, since configs import one another; JAX's
# compilation cache, so that a second start is quick; the allocator's settings.
#
#   source launch/environment.sh EXTRAS
#
# EXTRAS are those of setup.py, separated by commas; '' for the core alone. The
# caller has set `set -euo pipefail`.

unifluid_install() {
  local root="$1" extras="$2" python checksum installed
  local venv="$root/.venv"
  # One line for each set of extras that is in place. The core's is a prefix of
  # every other one: whatever has been installed has brought the core along.
  installed="$venv/installed"
  checksum="$(cksum <"$root/setup.py")"
  grep -qs "^$checksum: $extras" "$installed" && return
  python="$(unifluid_python)" || return
  echo "Installing unifluid_jax${extras:+[$extras]} into $venv ..." >&2
  "$python" -m venv "$venv"
  # Modules are compiled when they are first imported, and most never are.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-compile --editable "$root${extras:+[$extras]}"
  echo "$checksum: $extras" >>"$installed"
}

unifluid_python() {
  local name suits
  suits='import sys, ensurepip; sys.exit(sys.version_info < (3, 11))'
  for name in python3.11 python3.12 python3.13 python3; do
    # Without ensurepip, a package of its own on some systems, no venv.
    if "$name" -c "$suits" 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo 'error: no Python 3.11 or newer that can make environments was found;' \
    'install one with its venv, such as python3.11 and python3.11-venv' >&2
  return 1
}

unifluid_environment() {
  local root
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  unifluid_install "$root" "$1"
  export PATH="$root/.venv/bin:$PATH"
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-\
$root/.cache/jax}"
  # Only glibc has these: large blocks stay with the process, on huge pages, so
  # that a training step does not fault its memory in anew. Of several arenas,
  # those of threads give theirs back all the same. A TPU's machine has many
  # threads, and little to do with its memory.
  if [[ "$1" != tpu ]] && getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
    export GLIBC_TUNABLES="glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:\
glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1"
  fi
  # XLA's own choice of 256 bits leaves a part of AVX-512 unused.
  if grep -qs avx512f /proc/cpuinfo; then
    export XLA_FLAGS="--xla_cpu_prefer_vector_width=512 ${XLA_FLAGS:-}"
  fi
}

unifluid_environment "$1"
