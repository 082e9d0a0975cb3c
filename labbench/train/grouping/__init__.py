"""Grouping of runs in stacks, and the engine of each stack."""
