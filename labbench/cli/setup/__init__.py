"""Commands for the first steps: a first grid, the start without a database, shell completion, the environment."""
