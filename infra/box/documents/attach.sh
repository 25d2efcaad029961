#!/bin/sh
RUN_ID='{{ run_id }}'
# Show what a run prints on this machine, live, until it ends. It only reads: however this ends, the run does not notice.
output=/scratch/runs/$RUN_ID/output.txt
goes_on() {
  case "$(systemctl is-active "slowfast-run@$RUN_ID")" in active | activating | deactivating | reloading) ;; *) false ;; esac
}

until [ -r "$output" ]; do
  goes_on || { echo "run $RUN_ID is not on this machine"; exit 3; }
  sleep 1
done
tail -n 200 -F "$output" 2> /dev/null &
tail=$!
trap 'kill $tail' EXIT
trap 'exit 0' HUP INT TERM
while goes_on; do sleep 2; done
sleep 1 # the last lines
echo "run $RUN_ID has ended on this machine"
