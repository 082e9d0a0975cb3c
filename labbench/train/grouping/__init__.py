"""Grouping of runs: stacks of runs that can train together, and the engine of each stack."""
