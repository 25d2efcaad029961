#!/bin/sh
RUN_ID='{{ run_id }}'
MODE='{{ mode }}'
# Stop a run. drain: SIGTERM, and 110 s in which the trainer saves and the courier uploads; now: SIGKILL, and what has
# been uploaded so far is what there is. A run that is not here is no mistake: it has ended.
set -eu
container=slowfast-$RUN_ID
unit=slowfast-run@$RUN_ID
running() { docker ps --quiet --filter label=slowfast-emotion=1 --filter "name=^/?$container\$"; }
case "$MODE" in drain | now) ;; *) echo "the mode is drain or now, not $MODE" >&2; exit 2 ;; esac

state=$(systemctl is-active "$unit") || true # "activating" while it waits to be started again
if [ -z "$(running)" ] && [ "$state" != active ] && [ "$state" != activating ]; then
  echo "run $RUN_ID is not active on this machine"
  exit 0
fi
if [ "$MODE" = now ]; then
  systemctl stop --no-block "$unit" # first, or what is killed would be started again
  docker kill "$container" > /dev/null || true
fi
systemctl stop "$unit"
[ -z "$(running)" ] || docker stop -t 110 "$container" > /dev/null # not the unit's
echo "run $RUN_ID is stopped ($MODE)"
