"""Writing of runs that a user's own script logs."""
