"""Tracking of training scripts: `labbench.start()` and the `Run` that it returns.

`Run.log` appends to a backlog, a `RunWriterThread` writes the backlog to the database, and `Storage` spills data to a
file while the database cannot be written. `process_hooks` ends the runs however the process ends.
"""
