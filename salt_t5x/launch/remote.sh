#!/usr/bin/env bash
# What gce.py has the workers of a TPU VM do. It is copied to them.
#
#   remote.sh install PYTHON WHEEL SETUP_SCRIPT REQUIREMENTS   (the last two: or '')
#   remote.sh start COMMAND...    starts a run that outlives the connection
#   remote.sh follow              shows its log until it ends
#   remote.sh result SECONDS      waits for its end, kills it after SECONDS, and
#                                 prints exit_code=CODE, or exit_code=lost
set -euo pipefail
cd "$(dirname "$0")/.."

run_exists() { [[ -e pid ]] && kill -0 "$(cat pid)" 2>/dev/null; }

follow_file=(tail --sleep-interval=0.1 --follow)  # with --pid=, to its end

wait_for_end() { timeout "$1" "${follow_file[@]}" --pid="$(cat pid)" /dev/null; }

install() {
  local python=$1 wheel=$2 setup=$3 requirements=$4
  if [[ -n $setup ]]; then
    # It may install Python and write the run's environment.sh.
    (cd files && bash "./$setup")
  fi
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python on $(hostname) is not Python 3.11 or newer: name another one" \
      "with --python, or install one in --setup_script." >&2
    exit 1
  fi
  "$python" -m venv venv
  venv/bin/python -m pip install "./files/$wheel[t5x,tpu]"
  if [[ -n $requirements ]]; then
    venv/bin/python -m pip install --requirement "files/$requirements"
  fi
}

start() {
  if run_exists; then
    echo "A run is still active on $(hostname): wait for it or end it." >&2
    exit 1
  fi
  rm -f exit_code
  # Keep the log of the previous run.
  if [[ -e log ]]; then mv log "log.$(date +%s)"; fi
  set -a
  if [[ -e secrets ]]; then
    source ./secrets
    rm secrets
  fi
  export PATH="$PWD/venv/bin:$PATH"
  if [[ -e files/environment.sh ]]; then source files/environment.sh; fi
  set +a
  setsid nohup bash files/remote.sh supervise "$@" >log 2>&1 </dev/null &
  echo $! >pid
}

supervise() {
  # The command receives SIGTERM, too; this shell writes its exit code.
  trap : TERM
  local code=0
  (cd files && exec "$@") || code=$?
  echo "$code" >exit_code.tmp
  mv exit_code.tmp exit_code
}

follow() { "${follow_file[@]}" --pid="$(cat pid)" --lines=200 log; }

result() {
  if run_exists && ! wait_for_end "$1"; then
    kill -KILL -- "-$(cat pid)" || true
    wait_for_end 60 || true
  fi
  local code=lost
  if [[ -e exit_code ]]; then code=$(cat exit_code); fi
  if [[ $code != 0 ]]; then
    echo "The end of the log of $(hostname):" >&2
    tail --lines=20 log >&2
  fi
  echo "exit_code=$code"
}

"$@"
