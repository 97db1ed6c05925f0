#!/bin/bash
# Trains on a TPU slice, all hosts, and makes it anew when it is preempted:  bash launch/tpu_vm.sh
# Needs gcloud, logged in, and a bucket; see docs/pods.md.
set -u

# Change these lines to your project.
NAME=${NAME:-cyclegan}
ZONE=${ZONE:-us-central2-b}
TYPE=${TYPE:-v4-32}
VERSION=${VERSION:-tpu-ubuntu2204-base}
REPOSITORY=${REPOSITORY:?set it to the address of your copy, for git clone}
CONFIG=${CONFIG:-configs/horse2zebra.py}
WORKDIR=${WORKDIR:-gs://BUCKET/runs/horse2zebra}
FLAGS=${FLAGS:---config.batch_size=16 --config.dtype=bfloat16}

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE"; }
everywhere() { tpu ssh "$NAME" --worker=all --command="$1"; }

SETUP="test -d cyclegan || git clone $REPOSITORY cyclegan; cd cyclegan &&
  python3 -m venv .venv && .venv/bin/pip install -q -e '.[gcs]' 'jax[tpu]'"
TRAIN="cd cyclegan && .venv/bin/python main.py --multihost --config=$CONFIG --workdir=$WORKDIR $FLAGS"

while true; do
    if [ "$(tpu describe "$NAME" --format='value(state)' 2>/dev/null)" != READY ]; then
        tpu delete "$NAME" --quiet 2>/dev/null
        tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" --spot || {
            sleep 60
            continue
        }
        everywhere "$SETUP" || continue
    fi
    everywhere "$TRAIN"
    status=$?
    case $status in
        0) exit 0 ;;
        # Stopped and saved, a host was lost, or ssh was (255): the same command goes on.
        75 | 129 | 130 | 134 | 137 | 143 | 255) echo "status $status: once more"; sleep 10 ;;
        *) echo "status $status: needs a person"; exit "$status" ;;
    esac
done
