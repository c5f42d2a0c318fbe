#!/usr/bin/env bash
# Runs a command on all workers of a Cloud TPU: one VM, a slice of a pod, or
# several slices. launch/README.md is the guide.
#
#   launch/tpu_vm.sh create     asks for the TPU and waits until it is there
#   launch/tpu_vm.sh setup      sends the checkout's commit and installs it
#   launch/tpu_vm.sh run -- COMMAND...   both, if needed; starts the command,
#                               follows it, and after a preemption begins anew
#   launch/tpu_vm.sh status     the TPU's state, each worker's progress
#   launch/tpu_vm.sh logs       a worker's log, followed
#   launch/tpu_vm.sh stop       SIGTERM: the training saves and ends
#   launch/tpu_vm.sh delete     gives the TPU back
#
# Flags, and the environment variables that are their defaults:
#
#   --name=NAME         TPU_NAME     the TPU's name; needed
#   --zone=ZONE         TPU_ZONE     its zone; needed
#   --type=TYPE         TPU_TYPE     v4-32, v5litepod-256, v5p-128, v6e-8, ...;
#                                    needed where a TPU may have to be created
#   --project=PROJECT   TPU_PROJECT  gcloud's own where it is not given
#   --slices=N          TPU_SLICES   slices of that type (1)
#   --runtime=VERSION   TPU_RUNTIME  software version (by the type)
#   --spot              TPU_SPOT=1   cheap, and taken away at any time
#   --slice=N --worker=N             logs: of which worker (0 and 0)
#   --yes                            delete: do not ask
#   --dry-run                        print the gcloud commands, run none
#
# TPU_POLL_SECONDS (30) is the time between two looks at the TPU.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
name="${TPU_NAME-}" zone="${TPU_ZONE-}" type="${TPU_TYPE-}"
project="${TPU_PROJECT-}" slices="${TPU_SLICES:-1}" runtime="${TPU_RUNTIME-}"
spot="${TPU_SPOT-}" slice=0 worker=0 yes='' dry_run=''
poll="${TPU_POLL_SECONDS:-30}"
command=()

# Attempts before what gcloud does not do is given up (a job that has been
# started is followed for as long as it takes), and looks at the TPU before the
# end of a job that has been told to stop is no longer waited for.
attempts=5 patience=20

say() { echo "tpu_vm: $*" >&2; }

fail() {
  echo "error: $*" >&2
  exit 1
}

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

parse() {
  local flag
  while (($#)); do
    case "$1" in
      --name=* | --zone=* | --type=* | --project=* | --slices=* | \
        --runtime=* | --slice=* | --worker=*)
        flag="${1%%=*}"
        printf -v "${flag#--}" %s "${1#*=}"
        ;;
      --spot) spot=1 ;;
      --yes) yes=1 ;;
      --dry-run) dry_run=1 ;;
      --) command=("${@:2}") && break ;;
      -h | --help) usage && exit ;;
      --name | --zone | --type | --project | --slices | --runtime | --slice | \
        --worker)
        fail "$1 needs its value in the same word: $1=VALUE"
        ;;
      *) fail "unknown argument $1; see launch/tpu_vm.sh --help" ;;
    esac
    shift
  done
  check_flags
}

# Refuses what gcloud would refuse, too, after minutes or in worse words.
check_flags() {
  [[ "$name" ]] || fail 'which TPU? Give --name=NAME, or set TPU_NAME'
  [[ "$zone" ]] || fail 'where is it? Give --zone=ZONE, or set TPU_ZONE'
  # What gcloud says of these is no NOT_FOUND, and would be asked again.
  [[ "$name" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
    fail "--name is '$name'; it must be of a-z, 0-9 and -, a letter first"
  [[ "$zone" =~ ^[a-z]+-[a-z]+[0-9]+-[a-z0-9]+$ ]] ||
    fail "--zone is '$zone'; it must be a zone, such as us-east5-b"
  { [[ "$slices" =~ ^[1-9][0-9]{0,2}$ ]] && ((slices <= 256)); } ||
    fail "--slices is '$slices'; it must be a number from 1 to 256"
  # Each slice is a node, which is called NAME-0, NAME-1, ...
  local last="$name"
  ((slices == 1)) || last="$name-$((slices - 1))"
  ((${#last} <= 63)) ||
    fail "--name is too long: $last has ${#last} letters, and Google Cloud" \
      'allows 63'
  { [[ "$slice" =~ ^(0|[1-9][0-9]{0,2})$ ]] && ((slice < slices)); } ||
    fail "--slice is '$slice'; it must be a number from 0 to $((slices - 1))"
  [[ "$worker" =~ ^(0|[1-9][0-9]{0,4})$ ]] ||
    fail "--worker is '$worker'; it must be the number of a worker, from 0 on"
  [[ -z "$type" || "$type" =~ ^[a-z0-9]+-[1-9][0-9]{0,4}$ ]] ||
    fail "--type is '$type'; it must be a family and a number of chips or" \
      'cores, such as v6e-8'
  [[ -z "$project" || "$project" =~ ^[a-z]([-a-z0-9.:]*[a-z0-9])?$ ]] ||
    fail "--project is '$project'; it must be the ID of a project"
  [[ -z "$runtime" || "$runtime" =~ ^[a-z0-9][-a-z0-9.]{0,62}$ ]] ||
    fail "--runtime is '$runtime'; it must be a version, such as" \
      'v2-alpha-tpuv6e'
  [[ "$poll" =~ ^[0-9]{1,5}(\.[0-9]+)?$ ]] ||
    fail "TPU_POLL_SECONDS is '$poll'; it must be a number of seconds"
  case "$spot" in
    '' | 1 | true) ;;
    0 | false) spot='' ;;
    *) fail "TPU_SPOT is '$spot'; it must be 1 or true, 0 or false, or empty" ;;
  esac
  [[ "$dry_run" ]] || command -v gcloud >/dev/null ||
    fail 'there is no gcloud; https://cloud.google.com/sdk/docs/install'
}

source "$root/launch/tpu_resource.sh"

# Packs the checkout's commit.
pack() {
  commit="$(git -C "$root" rev-parse HEAD)" ||
    fail "$root is no git checkout with a commit, which is what is sent"
  [[ -z "$(git -C "$root" status --porcelain -- .)" ]] ||
    say 'uncommitted changes are NOT sent'
  say "the code is commit $(git -C "$root" log -1 --format='%h, %s')"
  package="$(mktemp -d)"
  trap 'rm -rf "$package"' EXIT
  git -C "$root" archive --output="$package/unifluid_jax.tar.gz" "$commit"
  git -C "$root" show "$commit:./launch/tpu_worker.sh" \
    >"$package/tpu_worker.sh"
  checksum="$(cksum <"$package/unifluid_jax.tar.gz")"
}

# Does something on all workers, until all of them have done it; false if the
# TPU was taken away. Workers of a new TPU take a while to answer, those under
# repair longer, and a copy may arrive at some of them only.
persist() {
  local attempt
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    "$@" && return
    ! lost || return 1
    say "not all workers of $name have done it; attempt $attempt of $attempts"
    [[ "$state" != REPAIRING ]] || attempt=0
    sleep "$poll"
  done
  fail "$1 does not succeed on all workers of $name, see above; delete it and" \
    'create it anew if a worker stays out of reach'
}

# Sends the packed commit to all workers and installs it.
install() {
  resources scp "$package/unifluid_jax.tar.gz" "$package/tpu_worker.sh" \
    "$name:" --node=all --worker=all &&
    on_all "bash tpu_worker.sh setup $commit $checksum"
}

# Starts the command on all workers, except where it runs already.
launch() {
  local code=0
  capture on_all \
    "bash tpu_worker.sh start $commit$(printf ' %q' "${command[@]}")" || code=$?
  [[ -z "$message" ]] || echo "$message" >&2
  [[ "$message" != *'another job is running'* ]] ||
    fail "$name does something else; stop that first"
  [[ -z "$output" ]] || echo "$output" >&2
  return "$code"
}

# Asks all workers. Sets $workers, a line each; $states, which of them occur;
# $job, one word for all: UNKNOWN if a worker does not answer.
survey() {
  local code=0 ask='if test -e tpu_worker.sh; then bash tpu_worker.sh status'
  capture on_all "$ask; else echo worker \$(hostname) empty:; fi" || code=$?
  workers="$(grep '^worker ' <<<"$output" || true)"
  states="$(cut -d ' ' -f 3 <<<"$workers" | tr -d : | sort -u)"
  if ((code)); then job=UNKNOWN; else job="$(one_of_states)"; fi
}

# A worker that has been started anew, perhaps with another disk, makes others
# fail: its state counts first.
one_of_states() {
  local each
  [[ -z "$dry_run" ]] || states='done'
  for each in interrupted empty failed running stopped 'done'; do
    if grep -q "^$each" <<<"$states"; then
      echo "$each"
      return
    fi
  done
}

# Waits until no worker runs the job any longer.
settle() {
  local i
  for ((i = 0; i < patience; i++)); do
    survey
    [[ "$job" == UNKNOWN || "$states" == *running* ]] || return 0
    sleep "$poll"
  done
  return 1
}

# Ends the job by all means: part of it has failed, and the rest hangs.
end() {
  on_all 'bash tpu_worker.sh stop' && settle ||
    on_all 'bash tpu_worker.sh kill' || true
}

# Gets the command to run. A job that runs on some workers only cannot go on: it
# is ended first. False if the TPU was taken away.
start() {
  survey
  if [[ "$states" != running ]]; then
    if [[ "$states" == *running* ]]; then
      say 'the job runs on some of the workers only; ending it'
      end
    fi
    persist install || return
  fi
  persist launch
}

# Follows the job to its end, or the TPU's. Sets $job, LOST for the latter.
follow() {
  local line shown='' why away='' failures=0
  while true; do
    survey
    why="a worker of $name does not answer: $(tail -n 1 <<<"$message")"
    line="$(grep -oEm 1 '[a-z_]+ [0-9]+/[0-9]+ .*' <<<"$workers" || true)"
    if [[ "$line" && "$line" != "$shown" ]]; then
      say "$line"
      shown="$line"
    fi
    case "$job" in
      'done' | stopped) return ;;
      running) failures=0 away='' ;;
      *)
        if lost; then
          job=LOST
          return
        fi
        case "$job" in
          UNKNOWN)
            [[ "$why" == "$away" ]] || say "$why; looking again"
            away="$why"
            # It may come back, but is not waited for where all is lost.
            if [[ "$states" == *failed* && "$state" != REPAIRING ]] &&
              ((++failures >= patience)); then
              job=failed
              return
            fi
            ;;
          failed)
            # For want of a worker that was away, or whose node still is.
            if [[ "$away" || "$state" == REPAIRING ]]; then
              job=interrupted
              return
            fi
            # One that is taken away makes others fail before it is told of.
            ((++failures < 2)) || return 0
            ;;
          *) return ;;
        esac
        ;;
    esac
    sleep "$poll"
  done
}

run() {
  # A command that heeds Ctrl-C itself, as gcloud does, would not end this one.
  trap 'exit 130' INT
  ((${#command[@]})) || fail 'what shall run? Give it last: run ... -- COMMAND'
  pack
  while true; do
    ensure
    if start; then
      say 'started; Ctrl-C leaves it running, the same command follows it again'
      follow
    else
      job=LOST
    fi
    case "$job" in
      LOST)
        say "$name is $state; beginning anew, from the last checkpoint"
        continue
        ;;
      'done') say "done on all workers; $name is still there, and paid for" ;;
      stopped) say 'stopped; the same command goes on from there' ;;
      failed)
        grep -F ' failed(' <<<"$workers" >&2
        end
        fail 'the job has failed, see above and launch/tpu_vm.sh logs'
        ;;
      *)
        say 'interrupted; starting it again'
        continue
        ;;
    esac
    return
  done
}

create() { ensure; }

setup() {
  pack
  persist install || fail "$name is $state; create it anew"
}

status() {
  [[ -z "$dry_run" ]] || state=ACTIVE
  look
  echo "$name: $state"
  [[ "$state" != UNKNOWN ]] ||
    fail "gcloud does not tell the state of $name: $message"
  if [[ "$state" == ACTIVE || "$state" == REPAIRING ]]; then
    survey
    echo "$workers"
    if [[ "$job" == UNKNOWN ]]; then
      echo "$message" >&2
      fail 'not every worker answers, see above'
    fi
  fi
}

logs() {
  resources ssh "$name" "--node=$slice" "--worker=$worker" \
    '--command=bash tpu_worker.sh logs 100'
}

stop() {
  on_all 'bash tpu_worker.sh stop' || fail 'not all workers could be told'
  settle ||
    fail 'the job has not ended yet; stop again to wait, or delete the TPU'
  echo "$workers"
}

delete() {
  local answer
  if [[ -z "$yes$dry_run" ]]; then
    read -r -p "Delete $name in $zone, with all that is on its disks? [y/N] " \
      answer || true
    [[ "${answer-}" == [yY]* ]] || fail 'not deleted'
  fi
  remove
}

case "${1-}" in
  create | setup | run | status | logs | stop | delete)
    parse "${@:2}"
    "$1"
    ;;
  '' | -h | --help | help) usage ;;
  *) fail "unknown command $1; see launch/tpu_vm.sh --help" ;;
esac
