#!/bin/bash
# Trains on Slurm, through every preemption and time limit:  sbatch launch/slurm.sh
# The same job is put back into the queue until the run is finished; see docs/pods.md.

# Change these lines to your cluster.
#SBATCH --job-name=cyclegan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00

# The run is told 180 s before the time limit or the preemption: time to end a step and to save.
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

# And these to your run.
CONFIG=${CONFIG:-configs/horse2zebra.py}
WORKDIR=${WORKDIR:-$HOME/runs/horse2zebra} # on a disk that all nodes share
FLAGS=${FLAGS:---config.batch_size=16}
# shellcheck disable=SC1091
if [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi

# shellcheck disable=SC2086
srun --kill-on-bad-exit=0 python main.py --multihost --config="$CONFIG" --workdir="$WORKDIR" $FLAGS &
run=$!
trap 'kill -TERM $run' TERM # srun passes it on to the processes
while true; do
    wait $run # a signal ends this wait too
    status=$?
    kill -0 $run 2>/dev/null || break
done

case $status in
    0) echo "finished" ;;
    # Stopped and saved, or a host was lost (75; killed: 137; aborted: 134): the same job goes on.
    75 | 129 | 130 | 134 | 137 | 143)
        echo "status $status: back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
        ;;
    *) echo "status $status: needs a person" ;;
esac
exit "$status"
