"""Rows and spill files of runs that a user's script logs."""
