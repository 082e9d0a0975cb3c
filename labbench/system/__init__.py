"""The system that a process runs on: its clock, control groups, rank, folders of the user, git and libraries."""
