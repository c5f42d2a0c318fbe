# shellcheck shell=bash disable=SC2154
# Sourced by launch/tpu_vm.sh, whose flags and `say` and `fail` it uses: the TPU
# as a queued resource of Google Cloud. Every kind of TPU is asked for in this
# one way, since slices that belong together can be had in no other.

# gcloud compute tpus ...; with --dry-run, prints it instead.
tpus() {
  local full=(gcloud compute tpus "$@" "--zone=$zone" --quiet)
  [[ -z "$project" ]] || full+=("--project=$project")
  if [[ "$dry_run" ]]; then
    printf '%q ' "${full[@]}" >&3
    echo >&3
  else
    "${full[@]}"
  fi
}
exec 3>&1

# Runs a command; sets $output and $message, its standard output and error.
capture() {
  local errors code=0
  errors="$(mktemp)"
  output="$("$@" 2>"$errors")" || code=$?
  message="$(<"$errors")"
  rm -f "$errors"
  return "$code"
}

resources() { tpus queued-resources "$@"; }

on_all() { resources ssh "$name" --node=all --worker=all "--command=$1"; }

nodes() {
  if ((slices == 1)); then
    echo "$name"
  else
    seq 0 "$((slices - 1))" | sed "s/^/$name-/"
  fi
}

# The first value of this name in gcloud's description of the queued resource.
described() { sed -n "/^ *$1: /{s///p;q;}" <<<"$description"; }

# Sets $state: that of the queued resource; if it is ACTIVE, PREEMPTED if a node
# is lost, and REPAIRING if one is not READY; ABSENT; UNKNOWN if gcloud does not
# say. A dry run keeps what it was. Only a node that was there before is lost if
# there is none of its name: with wrong --slices there never was, and the TPU is
# not to be removed for that.
state=ABSENT description='' seen=' '
look() {
  local node
  if capture resources describe "$name" --format=yaml; then
    description="$output"
    [[ "$dry_run" ]] || state="$(described state)"
  elif [[ "$message" == *NOT_FOUND* ]]; then
    state=ABSENT
  else
    state=UNKNOWN
  fi
  [[ "$state" == ACTIVE ]] || return 0
  for node in $(nodes); do
    if capture tpus tpu-vm describe "$node" '--format=value(state)'; then
      [[ "$seen" == *" $node "* ]] || seen+="$node "
    elif [[ "$message" == *NOT_FOUND* && "$seen" == *" $node "* ]]; then
      output=TERMINATED
    fi
    case "$output" in
      READY | '') ;;
      PREEMPTED | TERMINATED | STOPPED | DELETING)
        state=PREEMPTED
        return
        ;;
      *) state=REPAIRING ;;
    esac
  done
}

# Whether the TPU was taken away. If its user gave it back, that is the end.
lost() {
  look
  case "$state" in
    ABSENT | DELETING) fail "there is no TPU $name in $zone (any longer)" ;;
    PREEMPTED | FAILED | SUSPENDING | SUSPENDED) return 0 ;;
    *) return 1 ;;
  esac
}

runtime_of_type() {
  case "$type" in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "--type is '$type'; it must be v4-CORES, v5litepod-CHIPS," \
      'v5p-CORES or v6e-CHIPS, or come with a --runtime' ;;
  esac
}

# What gcloud says of what it will not do at a later attempt either.
refused='PERMISSION_DENIED|INVALID_ARGUMENT|UNAUTHENTICATED'

# Runs a gcloud command until it has been done, which a message that matches $1
# says too. False, with what gcloud says, if that takes too many attempts, or if
# the message matches $2. A limit of calls per minute passes, though it is told
# as a quota.
insist() {
  local attempt
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    capture "${@:3}" && return
    [[ ! "$message" =~ $1 ]] || return 0
    [[ ! "$message" =~ $2 || "$message" == *'per minute'* ]] || break
    say "attempt $attempt of $attempts: $(tail -n 1 <<<"$message")"
    sleep "$poll"
  done
  echo "$message" >&2
  return 1
}

request() {
  local version flags
  version="${runtime:-$(runtime_of_type)}" || exit
  flags=("--accelerator-type=$type" "--runtime-version=$version")
  if ((slices == 1)); then
    flags+=("--node-id=$name")
  else
    flags+=("--node-count=$slices" "--node-prefix=$name")
  fi
  [[ -z "$spot" ]] || flags+=(--spot)
  say "asking for $name: $slices x $type in $zone${spot:+, spot}"
  insist ALREADY_EXISTS "$refused|RESOURCE_EXHAUSTED|[Qq]uota" \
    resources create "$name" "${flags[@]}" ||
    fail "gcloud cannot create $name ($slices x $type in $zone), see above." \
      'Quotas are raised at https://console.cloud.google.com/iam-admin/quotas'
  [[ -z "$dry_run" ]] || state=ACTIVE
}

remove() {
  insist NOT_FOUND "$refused" resources delete "$name" --force ||
    fail "gcloud cannot delete $name, see above"
  seen=' '
}

# What is there must be what the flags ask for, or the next one, after a
# preemption, would be another.
compare() {
  local kind count is asks
  kind="$(described acceleratorType)" count="$(described nodeCount)"
  is="${count:-1} x ${kind:-$type}"
  [[ "$(described spot)" =~ ^(false)?$ ]] || is+=', spot'
  asks="$slices x ${type:-$kind}${spot:+, spot}"
  [[ "$is" == "$asks" ]] ||
    fail "$name is $is, and the flags ask for $asks: give the flags that it" \
      'was created with, or delete it first'
}

# Waits until the TPU is active; creates it if there is none or it was lost, but
# not if there was one until its user deleted it.
ensure() {
  local told='' there='' unknown=0
  while true; do
    look
    [[ "$state" == "$told" ]] || say "$name is $state"
    told="$state"
    [[ "$state" == UNKNOWN ]] || unknown=0
    # What has failed, or is deleted already, makes room for another.
    [[ "$dry_run" || "$state" =~ ^(ABSENT|DELETING|FAILED|UNKNOWN)$ ]] ||
      compare
    case "$state" in
      ACTIVE) return ;;
      ABSENT)
        [[ -z "$there" ]] || fail "$name was deleted while it was waited for"
        request
        there=1
        ;;
      FAILED | SUSPENDED | PREEMPTED)
        [[ "$state" != FAILED || -z "$there" ]] ||
          fail "the request for $name has failed; to see why: gcloud compute" \
            "tpus queued-resources describe $name --zone=$zone"
        remove
        there=''
        ;;
      UNKNOWN)
        ((++unknown < attempts)) ||
          fail "gcloud does not tell the state of $name: $message"
        ;;
      DELETING) ;;
      *) there=1 ;;
    esac
    [[ "$dry_run" ]] || sleep "$poll"
  done
}
