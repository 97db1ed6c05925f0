#!/bin/bash
# Tries launch/slurm.sh without a cluster: two Slurm nodes on this machine, a run that is preempted,
# loses a process, and finishes.  sudo bash launch/try_slurm.sh [FOLDER]
# Installs nothing. Needs root, Debian's slurm-wlm and munge, and the package in the python found
# first. All that it starts lives in namespaces of its own, and ends with it.
set -eu

for tool in slurmctld slurmd munged sbatch unshare python; do
    command -v $tool >/dev/null || { echo "needs $tool (apt-get install slurm-wlm munge)"; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "needs root, for namespaces and slurmd"; exit 2; }
if [ "${1:-}" != inside ]; then
    folder=$(realpath "${1:-$(mktemp -d)}")
    exec unshare --mount --pid --fork --mount-proc --kill-child bash "$0" inside "$folder"
fi

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
        sleep 1
    done
    say "never came: $1"; tail -n 50 "$log"; exit 1
}

export WORKDIR=$folder/run CONFIG=configs/synthetic.py JAX_PLATFORMS=cpu
export FLAGS="--config.batch_size=2 --config.data.max_images=16 --config.data.load_size=16
  --config.data.crop_size=16 --config.generator.width=4 --config.generator.num_blocks=0
  --config.discriminator.width=4 --config.discriminator.num_layers=1 --config.evaluate_every=0
  --config.keep_best= --config.schedule.num_epochs=1000 --config.schedule.decay_start_epoch=500
  --config.max_steps=${STEPS:-600} --config.log_every=20 --config.checkpoint_every=100"
job=$(sbatch --parsable --output="$log" "$folder/slurm.sh")
say "submitted job $job on $(sinfo -hNo %N | sort -u | xargs)"
until_logged 'step .*00/'
say "training; an urgent job takes both nodes"
sbatch --parsable -p urgent -N2 --output=/dev/null --wrap 'srun sleep 5' >/dev/null
until_logged 'back into the queue\|Stopped by signal'
until_logged 'Resuming after step'
until_logged 'step .*00/'
victim=$(pgrep -n -f 'main.py --multihost')
say "goes on; process $victim of one node is killed"
kill -9 "$victim"
until_logged 'Resuming after step'
say "goes on; waiting for the end"
for _ in $(seq 600); do
    state JobState | grep -q 'COMPLETED\|FAILED\|TIMEOUT\|CANCELLED' && break
    sleep 1
done
say "$(state JobState) $(state ExitCode) $(state Restarts)"
grep -n 'Resuming\|Stopped\|error:\|queue\|Finished\|^finished' "$log"
