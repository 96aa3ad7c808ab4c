#!/usr/bin/env bash
# Ray on a Slurm allocation, and a sweep on it: sbatch slurm.sh SWEEP [more options of `crossfold run`]
# CROSSFOLD is a checkout with its .venv, and WORKSPACE the workspace, both on a file system that all nodes share.
#SBATCH --job-name=crossfold
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
# Slurm signals the driver ten minutes before the end: running cells are checkpointed, and the same job continues later.
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
set -euo pipefail

SWEEP=${1:?give a sweep: sbatch slurm.sh SWEEP}
shift
CROSSFOLD=${CROSSFOLD:-$SLURM_SUBMIT_DIR}
WORKSPACE=${WORKSPACE:-$CROSSFOLD/.crossfold}
PORT=${PORT:-6379}
export PATH="$CROSSFOLD/.venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0
# One token a job, so that other users of the cluster cannot send it work.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$WORKSPACE/.ray-token-$SLURM_JOB_ID"
mkdir -p "$WORKSPACE"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH")

mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
HEAD=${NODES[0]}
WORKERS=$((${#NODES[@]} - 1))

srun --nodes=1 --ntasks=1 --nodelist="$HEAD" --overlap ray start --head --node-ip-address="$HEAD" --port="$PORT" --block &
until srun --nodes=1 --ntasks=1 --nodelist="$HEAD" --overlap ray status --address="$HEAD:$PORT" >/dev/null 2>&1; do sleep 2; done
if ((WORKERS > 0)); then
  srun --nodes="$WORKERS" --ntasks="$WORKERS" --exclude="$HEAD" --overlap ray start --address="$HEAD:$PORT" --block &
fi

# The driver takes no CPU of its own; workers that join late are used as they come.
crossfold run "$SWEEP" --workspace "$WORKSPACE" --address "$HEAD:$PORT" "$@" &
DRIVER=$!
# TERM, because a shell starts what runs in its background with INT ignored.
trap 'kill -TERM "$DRIVER"' INT TERM
CODE=0
wait "$DRIVER" || CODE=$?
# A signal ends `wait` early; the driver is still writing its checkpoints.
while kill -0 "$DRIVER" 2>/dev/null; do wait "$DRIVER" || CODE=$?; done
rm -f "$RAY_AUTH_TOKEN_PATH"
exit "$CODE"
