#!/bin/sh
RUN_ID='{{ run_id }}'
# Remove what an ended run has left on this machine: its container and its directory, and nothing else. What S3 lacks of
# the directory is uploaded and looked for there first, so the newest checkpoint cannot be lost here.
set -eu
refuse() { echo "$*" >&2; exit 3; }

# shellcheck source=/dev/null
. /etc/slowfast.env
export AWS_DEFAULT_REGION="$REGION"
active=$(docker ps --filter label=slowfast-emotion=1 --format '{''{.Names}}') || refuse "Docker does not answer"
[ -z "$active" ] || refuse "a run is active here ($active); stop it first"
directory=/scratch/runs/$RUN_ID
if [ -d "$directory" ]; then
  sleep 1 # S3 tells times in whole seconds: a file of this very second would look newer than its copy
  aws s3 sync "$directory" "s3://$BUCKET/runs/$RUN_ID" --no-progress
  missing=$(aws s3 sync "$directory" "s3://$BUCKET/runs/$RUN_ID" --dryrun)
  [ -z "$missing" ] || refuse "not everything is in S3, so nothing is removed: $missing"
  rm -rf "$directory"
  echo "removed $directory; s3://$BUCKET/runs/$RUN_ID has all of it"
fi
left=$(docker ps --all --quiet --filter label=slowfast-emotion=1 --filter "name=^/?slowfast-$RUN_ID\$")
if [ -n "$left" ]; then
  docker rm "$left" > /dev/null
  echo "removed container slowfast-$RUN_ID"
fi
echo "clean"
