#!/bin/sh
RUN_ID='{{ run_id }}'
# Start a run and return: SSM shows nothing of a command before its end, and a run outlives any command.
# Ends with 0 if the run goes (now or already), 3 if another run has the machine, 4 if the machine is not ready.
set -eu
refuse() { code=$1; shift; echo "$*" >&2; exit "$code"; }

[ -r /etc/slowfast.env ] || refuse 4 "the machine is still booting; try again in a minute"
exec 9> /run/slowfast.lock && flock 9 # of two commands at the same moment one starts its run, the other sees it
# Two braces in a row would be a parameter to SSM, hence the split.
containers=$(docker ps --filter label=slowfast-emotion=1 --format '{''{.Names}}') || refuse 4 "Docker does not answer"
units=$(systemctl list-units --plain --no-legend --state=active,activating 'slowfast-run@*')
active=$(printf '%s\n%s\n' "$containers" "$units" | sed -n 's/^slowfast-\(run@\)\{0,1\}\([a-z0-9-]*\).*/\2/p' | sort -u)
starts="run $RUN_ID begins as soon as its image is here"
case "$active" in
  "$RUN_ID") if [ -n "$containers" ]; then echo "run $RUN_ID is active already"; else echo "$starts"; fi; exit 0 ;;
  ?*) refuse 3 "this machine is busy with run $active; wait for its end, or stop it first" ;;
esac
unit=slowfast-run@$RUN_ID
systemctl reset-failed "$unit" 2> /dev/null || true # an operator asks: it may fail as often again
systemctl start --no-block "$unit" # to pull an image may take longer than a command may
for _ in 1 2 3 4 5 6 7 8 9 10; do # until the next command, which the lock keeps waiting, can see it
  [ "$(systemctl is-active "$unit")" = inactive ] || break
  sleep 0.2
done
echo "$starts"
