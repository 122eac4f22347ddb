#!/bin/bash
# A Ray cluster inside a SLURM job, and the pipeline's models scored and fine-tuned on it:
#     sbatch docs/slurm.sh
# One task a node; the first is the head. The repository, its environment and the models have to lie on a file system
# that all nodes see, under the same path.
#SBATCH --job-name=transfergraph
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH"

port=6379
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
size="--num-cpus=$SLURM_CPUS_PER_TASK --num-gpus=${SLURM_GPUS_ON_NODE:-0}"

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address="$head" --port=$port $size --block &
until ray status --address="$head:$port" >/dev/null 2>&1; do sleep 2; done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --overlap \
    ray start --address="$head:$port" $size --block &
fi

export TRANSFERGRAPH_EXECUTOR="ray:$head:$port"
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap dvc repro
ray stop
