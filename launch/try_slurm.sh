#!/bin/bash
# Tries launch/slurm.sh without a cluster: two Slurm nodes and a bucket on this machine. A run is
# preempted twice, loses a node, goes on on the other, finishes, and is compared with an unbroken one.
#   sudo bash launch/try_slurm.sh [FOLDER]
# Installs nothing. Needs root, Debian's slurm-wlm, munge and iproute2, and the package with its extra
# `test` in the python found first. All that it starts lives in namespaces of its own, and ends with it.
set -eu

for tool in slurmctld slurmd munged sbatch unshare ip python; do
    command -v $tool >/dev/null || { echo "needs $tool (apt-get install slurm-wlm munge iproute2)"; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "needs root, for namespaces and slurmd"; exit 2; }
if [ "${1:-}" != inside ]; then
    folder=$(realpath "${1:-$(mktemp -d)}")
    exec unshare --mount --net --pid --fork --mount-proc --kill-child bash "$0" inside "$folder"
fi

# A network of its own, whose ports none has taken. Slurm wants more than the loopback.
ip link set lo up
ip link add trial0 type veth peer name trial1
ip addr add 192.0.2.1/24 dev trial0 && ip link set trial0 up
folder=$2
mkdir -p "$folder"/{log,state,node1,node2}
host=$(hostname -s)
# Here alone: names of the nodes, and a script with the lines changed that a user changes.
{ cat /etc/hosts; echo "127.0.0.1 node1 node2 $host"; } >"$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
sed '/gpus-per-node/d; s/cpus-per-task=.*/cpus-per-task=1/; s/--time=.*/--time=30/' \
    launch/slurm.sh >"$folder/slurm.sh"
dd if=/dev/urandom of="$folder/key" bs=1 count=1024 status=none
chmod 400 "$folder/key"
chmod go-w "$folder"
cat >"$folder/slurm.conf" <<EOF
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$folder/munge.socket
SlurmdTimeout=90
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmdPidFile=$folder/%n.pid
SlurmctldPidFile=$folder/ctld.pid
SlurmctldLogFile=$folder/log/ctld
SlurmdLogFile=$folder/log/%n
SlurmctldPort=27817
ProctrackType=proctrack/pgid
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=600
SchedulerParameters=batch_sched_delay=1,requeue_delay=1
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=27818 CPUs=2 State=UNKNOWN
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=27819 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF
EOF
export SLURM_CONF=$folder/slurm.conf
munged --key-file="$folder/key" --socket="$folder/munge.socket" --pid-file="$folder/munge.pid" \
    --seed-file="$folder/seed" --log-file="$folder/log/munge" --force
slurmctld
slurmd -N node1
slurmd -N node2

# The bucket, as a server on this machine.
export STORAGE_EMULATOR_HOST=http://127.0.0.1:27820 GOOGLE_AUTH_TOKEN_FOR_TESTING=x
export TENSORSTORE_GCS_HTTP_URL=$STORAGE_EMULATOR_HOST
python tests/bucket_server.py 27820 >"$folder/log/bucket" 2>&1 &

say() { echo "[$(date +%T)] $*"; }
state() { scontrol show job "$job" | grep -o "$1=[^ ]*"; }
log=$folder/slurm.out
until_logged() { # a pattern, more often than it is there now
    local before
    touch "$log"
    before=$(grep -c "$1" "$log" || true)
    for _ in $(seq 600); do
        [ "$(grep -c "$1" "$log" || true)" -gt "$before" ] && return
        ! grep -q 'needs a person' "$log" || break
        # Slurm lets two minutes pass before a job that went back; here nobody wants to wait.
        ! state JobState | grep -q PENDING || scontrol update JobId="$job" StartTime=now || true
        sleep 1
    done
    say "never came: $1"; tail -n 50 "$log"; exit 1
}

export WORKDIR=gs://runs/trial CONFIG=configs/synthetic.py JAX_PLATFORMS=cpu
export FLAGS="--config.batch_size=2 --config.data.max_images=16 --config.data.load_size=16
  --config.data.crop_size=16 --config.generator.width=4 --config.generator.num_blocks=0
  --config.discriminator.width=4 --config.discriminator.num_layers=1 --config.evaluate_every=0
  --config.keep_best= --config.schedule.num_epochs=1000 --config.schedule.decay_start_epoch=500
  --config.max_steps=${STEPS:-600} --config.log_every=20 --config.checkpoint_every=100"
job=$(sbatch --parsable --output="$log" "$folder/slurm.sh")
say "submitted job $job on $(sinfo -hNo %N | sort -u | xargs), workdir $WORKDIR"
until_logged 'step .*[02468]0/'
for time in first second; do
    say "training; an urgent job takes both nodes, for the $time time"
    sbatch --parsable -p urgent -N2 --output=/dev/null --wrap 'srun sleep 5' >/dev/null
    until_logged 'back into the queue'
    until_logged 'Resuming after step'
    until_logged 'step .*[02468]0/'
done
say "training; node2 is gone: its slurmd, and all that ran there"
kill -9 "$(cat "$folder/node2.pid")"
for process in $(pgrep -f 'main.py --multihost'); do
    if tr '\0' '\n' <"/proc/$process/environ" | grep -qx SLURM_NODEID=1; then
        kill -9 "$process" "$(ps -o ppid= -p "$process" | xargs)" 2>/dev/null || true
    fi
done
until_logged 'NODE FAILURE\|back into the queue'
scancel "$job"
job=$(sbatch --parsable --nodes=1 --output="$log" "$folder/slurm.sh")
say "submitted anew as job $job, on one node"
until_logged 'Resuming after step'
say "goes on; waiting for the end"
for _ in $(seq 600); do
    state JobState | grep -q 'COMPLETED\|FAILED\|TIMEOUT\|CANCELLED' && break
    sleep 1
done
say "$(state JobState) $(state ExitCode)"
grep -n 'device(s)\|Resuming\|Stopped\|error:\|queue\|Finished\|^finished' "$log"

say "an unbroken run, in one process"
# shellcheck disable=SC2086
python main.py --config=$CONFIG --workdir="$folder/unbroken" $FLAGS >"$folder/log/unbroken" 2>&1
python - "$WORKDIR" "$folder/unbroken" <<EOF
import sys

import jax
import numpy as np

from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.storage import as_path

broken, unbroken = (Checkpoints(as_path(each) / 'checkpoints') for each in sys.argv[1:])
step = broken.latest()
assert step == unbroken.latest()
pairs = [jax.tree.leaves(each.restore_networks()[0]) for each in (broken, unbroken)]
most = max(np.abs(x - y).max() for x, y in zip(*pairs, strict=True))
size = np.sqrt(np.mean([np.mean(np.square(x)) for x in pairs[0]]))
print(f'parameters after step {step} differ by {most:.1e} at most, of values of {size:.1e} (RMS)')
EOF
