#!/bin/bash
# First boot of a machine; `export KEY='value'` lines for STACK, REGION, BUCKET, IMAGE (by digest, or empty; of runs whose
# request names none), ASG, LOG_GROUP, TOPIC and IDLE_MINUTES come before. Safe to run twice. A step that fails is told
# and the next is tried (so no `set -e`).
set -uo pipefail
UNITS=/etc/systemd/system INSTANCE=$(cat /var/lib/cloud/data/instance-id)
export HOME=/root AWS_DEFAULT_REGION=$REGION INSTANCE
# A daemon-reload while a container runs can take the GPU from it, so a second boot leaves a run alone.
systemctl is-active --quiet 'slowfast-run@*' && { echo "a run is active: nothing to do"; exit 0; }

# The idle timer comes first, needing neither Docker nor the network.
mkdir -p /opt/slowfast /scratch
env | grep -E '^(STACK|(AWS_DEFAULT_)?REGION|BUCKET|IMAGE|IDLE_MINUTES|ASG|LOG_GROUP|TOPIC|INSTANCE)=' > /etc/slowfast.env
cat > /opt/slowfast/idle <<'EOF'
# Give the machine back when no container of ours has run or was about to, and no SSM session was open, for IDLE_MINUTES
# of uptime (not of clock: that jumps when a machine first hears the time). A Docker that is silent runs nothing.
set -a && . /etc/slowfast.env
now=$(cut -d. -f1 /proc/uptime) stamp=/run/slowfast-active
if [ ! -s "$stamp" ] || pgrep -x ssm-session-wor > /dev/null ||
  [ -n "$(systemctl list-units --plain --no-legend --state=activating 'slowfast-run@*')" ] ||
  [ -n "$(timeout 20 docker ps --quiet --filter label=slowfast-emotion=1)" ]; then echo "$now" > "$stamp"; fi
[ $((now - $(cat "$stamp"))) -ge $((IDLE_MINUTES * 60)) ] || exit 0
# Out of the group first, or the group would replace it; powered off in any case.
timeout 60 aws autoscaling terminate-instance-in-auto-scaling-group --instance-id "$INSTANCE" \
  --should-decrement-desired-capacity
shutdown -h now
EOF
printf '[Service]\nType=oneshot\nExecStart=/bin/bash /opt/slowfast/idle\n' > $UNITS/slowfast-idle.service
printf '[Timer]\nOnActiveSec=1min\nOnUnitActiveSec=1min\n[Install]\nWantedBy=timers.target\n' > $UNITS/slowfast-idle.timer
cat > /opt/slowfast/ready <<'EOF'
# Bring the image that run $1 was begun with, whatever this machine or its stack has come to use meanwhile; a request of
# before names none. What is said here is all that is known of a run whose image does not come.
exec > /run/slowfast-ready 2>&1
set -ao pipefail && . /etc/slowfast.env && HOME=/root
docker rm --force "slowfast-$1"
request=$(aws s3 cp "s3://$BUCKET/runs/$1/request.json" -) || grep -q '(404)' /run/slowfast-ready || exit # the courier tells of none
image=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1]).get("image", ""))' "$request")
[[ ${image:=$IMAGE} =~ ^[a-z0-9.:/-]+@sha256:[0-9a-f]{64}$ ]] || { echo "no image has that name: '$image'"; exit 1; }
sed -i "s|^IMAGE=.*|IMAGE=$image|" /etc/slowfast.env
docker image inspect "$image" > /dev/null && exit
for pause in 5 10 20 40 0; do
  aws ecr get-login-password | docker login --username AWS --password-stdin "${image%%/*}"
  docker pull --quiet "$image" && exit
  sleep $pause
done
exit 1
EOF
# A run is one unit and one container, started by the document `run` or by the end of this script. The image's entry
# point is the courier, which takes the run's id. The container is kept, so that what Docker knows of its end is shipped.
# Whatever is killed, courier, container or Docker itself, is started again and goes on; ten times an hour, not for ever.
printf '[Unit]\nAfter=docker.service\nStartLimitIntervalSec=3600\nStartLimitBurst=10\n[Service]\nRestart=on-failure\nRestartSec=5\nTimeoutStartSec=3600\n' \
  > $UNITS/slowfast-run@.service
cat >> $UNITS/slowfast-run@.service <<'EOF'
EnvironmentFile=/etc/slowfast.env
ExecStartPre=/bin/bash /opt/slowfast/ready %i
ExecStart=docker run --name slowfast-%i --label slowfast-emotion=1 --init --network host --ipc host --stop-timeout 110 \
  --env-file /etc/slowfast.env --volume /scratch:/scratch $GPUS $IMAGE %i
ExecStop=-docker stop -t 110 slowfast-%i
ExecStopPost=-/bin/bash -c '{ { docker inspect --format "{{json .State}}" slowfast-%i && docker logs --tail 2000 slowfast-%i; } \
  || cat /run/slowfast-ready; } 2>&1 \
  | aws s3 cp - "s3://$BUCKET/runs/%i/machine-$INSTANCE.txt"'
TimeoutStopSec=180
EOF
systemctl daemon-reload && systemctl enable --now slowfast-idle.timer
logs() { timeout 20 aws logs "$@" --log-group-name "$LOG_GROUP" --log-stream-name "boot-$INSTANCE"; }
say() { echo "$1"; logs put-log-events --log-events "[{\"timestamp\": $(date +%s%3N), \"message\": \"$1\"}]" > /dev/null; }
logs create-log-stream; say "boot: idle timer set to $IDLE_MINUTES minutes"
systemctl mask --now unattended-upgrades.service apt-daily{,-upgrade}.{service,timer} # they renew the driver under a run

# The Deep Learning images mount their instance store themselves; elsewhere it comes raw, or there is none.
fast=$(readlink -f /dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_* | head -n 1)
if mountpoint -q /scratch; then :; elif mountpoint -q /opt/dlami/nvme; then mount --bind /opt/dlami/nvme /scratch
elif [ -b "$fast" ]; then { blkid "$fast" || mkfs.ext4 -q "$fast"; } && mount -o noatime "$fast" /scratch; fi
chmod 1777 /scratch # the container's user is not root
say "boot: /scratch has $(df -h --output=avail /scratch | tail -n 1 | tr -d ' ') free"

# With the systemd driver a container loses its GPU at anybody's next daemon-reload.
python3 - <<'EOF' && systemctl restart docker
import json, pathlib
path = pathlib.Path("/etc/docker/daemon.json")
old = json.loads(path.read_text()) if path.exists() else {}
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(new := {**old, "exec-opts": ["native.cgroupdriver=cgroupfs"]}, indent=2))
raise SystemExit(new == old)
EOF
if timeout 60 nvidia-smi -L; then gpu=answers && echo "GPUS=--gpus=all" >> /etc/slowfast.env; fi
say "boot: GPU ${gpu:-does not answer}"

# `make train` writes the run's id into this object and removes it at the end: a replacement goes on where it stood.
run=$(aws s3 cp "s3://$BUCKET/active/$STACK" -)
[[ $run =~ ^[a-z0-9][a-z0-9-]{2,62}$ ]] || { say "boot: ready, no run is active"; exit 0; }
say "boot: run $run begins as soon as its image is here"; systemctl start --no-block "slowfast-run@$run"
