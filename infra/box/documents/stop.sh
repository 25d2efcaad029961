#!/bin/sh
RUN_ID='{{ run_id }}'
MODE='{{ mode }}'
# Stop a run. drain: SIGTERM, and 110 s in which the trainer saves and the courier uploads; now: SIGKILL, and what has
# been uploaded so far is what there is. A run that is not here is no mistake: it has ended.
set -eu
container=slowfast-$RUN_ID
running=$(docker ps --quiet --filter label=slowfast-emotion=1 --filter "name=^/?$container\$")
if [ -z "$running" ]; then
  echo "run $RUN_ID is not active on this machine"
  exit 0
fi
case "$MODE" in
  drain) docker stop -t 110 "$container" > /dev/null ;;
  now) docker kill "$container" > /dev/null ;;
  *) echo "the mode is drain or now, not $MODE" >&2; exit 2 ;;
esac
echo "run $RUN_ID is stopped ($MODE)"
