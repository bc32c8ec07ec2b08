#!/bin/sh
# One merge over sixteen tasks of a Slurm array. Paths are those that the compute nodes see:
#
#   lora-tool merge BASE ADAPTER -o OUT --plan plan.json --workers 16
#   job=$(sbatch --parsable examples/slurm_array.sh plan.json)
#   sbatch --dependency=afterok:"$job" --wrap 'lora-tool commit plan.json'
#
# A task that was preempted or killed is run again (--requeue): it makes what is not finished. Each task needs the
# memory of one tensor's factors and little more; the pages of its inputs are the file system's cache.
#SBATCH --job-name=lora-merge
#SBATCH --array=1-16
#SBATCH --cpus-per-task=8
#SBATCH --mem=4G
#SBATCH --requeue

set -eu
plan=${1:?usage: sbatch examples/slurm_array.sh PLAN}

# SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT say which part is this task's.
exec lora-tool --threads "${SLURM_CPUS_PER_TASK:-0}" work "$plan"
