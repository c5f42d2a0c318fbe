#!/usr/bin/env bash
# One job on one worker of a TPU. launch/tpu_vm.sh copies this script to the
# home folder of every worker and calls it there:
#
#   tpu_worker.sh setup COMMIT CKSUM SIZE   unpacks the code and installs it
#   tpu_worker.sh start COMMIT COMMAND...   starts the command, unless it runs
#   tpu_worker.sh status                    one line, see `status` below
#   tpu_worker.sh logs LINES                the log's end, and what follows
#   tpu_worker.sh stop | kill               SIGTERM, so that it saves | SIGKILL
#   tpu_worker.sh job COMMAND...            runs the command and tells a
#                                           preemption from an end by its exit
#                                           code, 143 (launch/gke_job.yaml)
set -euo pipefail

code="$HOME/unifluid_jax"
run="$HOME/unifluid_run"
mkdir -p "$run"

fail() {
  echo "error: $(hostname): $*" >&2
  exit 1
}

# A job and its processes hold this lock as long as one of them lives, which
# no pid could tell after the machine has been started anew.
running() {
  ! flock --nonblock "$run/lock" true
}

state() {
  if running; then
    echo running
  elif [[ -e "$run/result" ]]; then
    cat "$run/result"
  elif [[ -e "$run/stopped" ]]; then
    echo stopped
  elif [[ -e "$run/job" ]]; then
    echo interrupted # Killed before it could say so.
  else
    echo empty
  fi
}

setup() {
  local commit="$1" checksum="$2 $3" archive="$HOME/unifluid_jax.tar.gz"
  running && fail "a job is running: $(<"$run/job"); stop it first"
  [[ "$(cksum <"$archive")" == "$checksum" ]] ||
    fail "$archive has not arrived whole"
  mkdir -p "$code"
  # What the commit no longer has must go. All else stays: the environment, the
  # compilation cache, and what jobs have made, since this is their folder too.
  tar -tzf "$archive" --quoting-style=literal |
    grep -v '/$' >"$run/files.new"
  if [[ -e "$run/files" ]]; then
    (cd "$code" && xargs -d '\n' rm -f --) <"$run/files"
  fi
  mv "$run/files.new" "$run/files"
  tar -xzf "$archive" -C "$code"
  load_environment
  echo "worker $(hostname) has commit $commit"
}

# The checkout's environment, with what a TPU needs.
load_environment() {
  export PATH="$HOME/.local/bin:$PATH"
  # Ubuntu 22.04, which the TPU images are, stops at Python 3.10.
  local suits='import sys, ensurepip; sys.exit(sys.version_info < (3, 11))'
  if ! python3 -c "$suits" && ! command -v python3.11 >/dev/null; then
    python3 -m pip install --quiet --user 'uv>=0.8'
    uv python install --quiet 3.11
  fi
  source "$code/launch/environment.sh" tpu
}

start() {
  local job
  job="commit $1:$(printf ' %q' "${@:2}")"
  exec 9>"$run/lock"
  if ! flock --nonblock 9; then
    [[ "$(<"$run/job")" == "$job" ]] ||
      fail "another job is running: $(<"$run/job"); stop it first"
    echo "worker $(hostname) runs it already"
    return
  fi
  load_environment
  rm -f "$run/result" "$run/stopped" "$run/group"
  echo "$job" >"$run/job"
  cd "$code"
  printf '\n%s: %s\n' "$(date --utc +%FT%TZ)" "$job" >>"$run/log"
  # A session of its own, without SIGHUP: the end of the connection is none of
  # its business, and a machine that goes down sends that along with SIGTERM.
  nohup setsid bash "$HOME/tpu_worker.sh" detached "${@:2}" \
    </dev/null >>"$run/log" 2>&1 &
  # Until it is there, the connection's end could take it along.
  while [[ ! -e "$run/group" ]]; do
    kill -0 "$!" 2>/dev/null || fail "cannot start: $(tail -n 1 "$run/log")"
    sleep 0.1
  done
  echo "worker $(hostname) has started it"
}

# The job of `start`. What sends it SIGTERM, `stop` or a machine that goes down,
# sends it to all of its process group: passed on, it would come twice and kill.
detached() {
  local status=0 signalled=''
  trap 'signalled=1' TERM
  echo "$$" >"$run/group"
  "$@" || status=$?
  conclude "$status" "$signalled"
}

# The job in a container, which sends SIGTERM to its first process alone.
job() {
  local child status=0 signalled=''
  "$@" &
  child=$!
  trap 'signalled=1; kill -TERM "$child"' TERM
  while true; do
    wait "$child" || true
    kill -0 "$child" 2>/dev/null || break
  done
  # The last `wait` may have been ended by the signal, not by the command.
  wait "$child" || status=$?
  conclude "$status" "$signalled"
}

# Tells how the job has ended, whose exit code is $1. $2 is empty, unless there
# was a SIGTERM.
conclude() {
  local status="$1" result
  if [[ $status != 0 && $status != 143 ]]; then
    result="failed($status)"
  elif [[ -e "$run/stopped" ]]; then
    result=stopped
  elif [[ "$2" || $status == 143 ]]; then
    result=interrupted
    status=143
  else
    result='done'
  fi
  echo "$result" >"$run/result"
  exit "$status"
}

# 'worker HOST STATE: LINE'. STATE is empty, running, done, stopped, interrupted
# (by a signal that `stop` did not send) or failed(EXIT CODE). LINE is the last
# progress line, or for want of one, and after a failure, the log's last line.
status() {
  local state line=''
  state="$(state)"
  if [[ -e "$run/log" ]]; then
    [[ "$state" == failed* ]] ||
      line="$(tail -n 1000 "$run/log" |
        grep -E '^[a-z_]+ [0-9]+/[0-9]+ ' | tail -n 1 || true)"
    line="${line:-$(tail -n 1 "$run/log")}"
  fi
  echo "worker $(hostname) $state: $line"
}

logs() {
  [[ -e "$run/log" ]] || fail 'no job has been started here'
  exec tail -n "$1" -F "$run/log"
}

stop() {
  running || return 0
  if [[ -e "$run/stopped" ]]; then # A second SIGTERM would end the save.
    echo "worker $(hostname) has been told to stop and has not ended yet"
  else
    touch "$run/stopped"
    # To all of it: a shell that runs a list of commands passes nothing on.
    kill -TERM -- "-$(<"$run/group")" || {
      rm "$run/stopped"
      return 1
    }
  fi
}

terminate() {
  if running; then
    touch "$run/stopped"
    kill -KILL -- "-$(<"$run/group")"
  fi
}

case "${1-}" in
  setup | start | detached | job | status | logs | stop) "$@" ;;
  kill) terminate ;;
  *) fail "unknown command ${1-}" ;;
esac
