"""First files of a project: a grid for a task or for a script, read from the script's own options, and skeletons."""
