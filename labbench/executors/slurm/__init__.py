"""Executor that trains stacks as jobs of SLURM, submitted by submitit."""
