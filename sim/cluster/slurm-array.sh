#!/usr/bin/env bash
# A sweep as a Slurm job array. Plan it first, merge it afterwards:
#   lacuna-sim sweep plan sim/sweeps/mixim-fig8.toml --out "$SWEEP"
#   sbatch --array=0-15 --export=ALL,SWEEP="$SWEEP",COUNT=16 sim/cluster/slurm-array.sh
#   lacuna-sim sweep merge "$SWEEP"
# A task that was killed is submitted again as it is, with the same COUNT: results that are there are kept.
# (--array=3 --export=ALL,SWEEP="$SWEEP",COUNT=16; Slurm's own count would then be 1.)
#SBATCH --job-name=lacuna-sim
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
set -euo pipefail
exec lacuna-sim sweep shard "$SWEEP" \
  --index "$SLURM_ARRAY_TASK_ID" --count "${COUNT:?how many tasks the whole array has}" \
  --threads "${SLURM_CPUS_PER_TASK:-1}" --quiet
