#!/usr/bin/env bash
# Plans the recipes on TPUs and writes experiments/plans/*.json and the table
# experiments/plans/README.md:
#
#   launch/plans.sh              all of them, some minutes each on two cores
#   launch/plans.sh 2b_v5e-256   those alone
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh plan
out=experiments/plans
mkdir -p "$out"
wanted=" $* "

# plan NAME CONFIG TOPOLOGY FLAG...
plan() {
  local name="$1" config="$2" topology="$3"
  shift 3
  [[ "$wanted" == '  ' || "$wanted" == *" $name "* ]] || return 0
  echo "== $name"
  python -m unifluid_jax.plan --config="experiments/$config.py" \
    --topology="$topology" --json="$out/$name.json" "$@"
}

# On 256 chips: widths of 1152 divide by 128, not by 256.
copies=--config.mesh.data=2
for size in 0_7b 2b 9b; do
  plan "${size}_v5e-256" "unifluid_$size" v5e:16x16 "$copies"
  plan "${size}_v5p-128" "unifluid_$size" v5p:4x4x4
  plan "${size}_v6e-256" "unifluid_$size" v6e:16x16 "$copies"
  plan "${size}_2x_v6e-256" "unifluid_$size" v6e:16x16 --num_slices=2 "$copies"
done
# Where arithmetic binds and HBM has room, dots is faster than sublayers; on v5e
# two microbatches make the room.
plan 2b_dots_v5e-256 unifluid_2b v5e:16x16 "$copies" \
  --config.model.remat=dots --config.training.grad_accum_steps=2
plan 2b_dots_v5p-128 unifluid_2b v5p:4x4x4 --config.model.remat=dots
plan 2b_finetune_v5e-8 unifluid_2b_finetune v5e:2x4
for chip in v5e v6e; do
  plan "2b_sample_${chip}-8" unifluid_2b_sample "$chip:2x4" --program=sample
done
python -m unifluid_jax.plan --table="$out"
