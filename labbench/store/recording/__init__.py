"""Rows of runs that `labbench run` queues and trains."""
