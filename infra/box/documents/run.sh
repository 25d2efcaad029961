#!/bin/sh
RUN_ID='{{ run_id }}'
# Start a run and return: SSM shows nothing of a command before its end, and a run outlives any command.
# Ends with 0 if the run goes (now or already), 3 if another run has the machine, 4 if the machine is not ready.
set -eu
refuse() { code=$1; shift; echo "$*" >&2; exit "$code"; }

[ -r /etc/slowfast.env ] || refuse 4 "the machine is still booting; try again in a minute"
# shellcheck source=/dev/null
. /etc/slowfast.env
exec 9> /run/slowfast.lock && flock 9 # of two commands at the same moment one starts its run, the other sees it
# Two braces in a row would be a parameter to SSM, hence the split.
containers=$(docker ps --filter label=slowfast-emotion=1 --format '{''{.Names}}') || refuse 4 "Docker does not answer"
units=$(systemctl list-units --plain --no-legend --state=active,activating 'slowfast-run@*')
active=$(printf '%s\n%s\n' "$containers" "$units" | sed -n 's/^slowfast-\(run@\)\{0,1\}\([a-z0-9-]*\).*/\2/p' | sort -u)
case "$active" in
  "$RUN_ID") echo "run $RUN_ID is active already"; exit 0 ;;
  ?*) refuse 3 "this machine is busy with run $active; wait for its end, or stop it first" ;;
esac
[ -n "${IMAGE:-}" ] || refuse 4 "the stack has no image yet; make image, then let a new machine start"
docker image inspect "$IMAGE" > /dev/null 2>&1 || refuse 4 "the image is not on the machine yet; try again in a minute"
systemctl start "slowfast-run@$RUN_ID" # returns as soon as the container is being started
echo "run $RUN_ID is started"
