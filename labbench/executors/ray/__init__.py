"""Executor that trains stacks as tasks of a Ray cluster."""
