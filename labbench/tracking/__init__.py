"""Tracking of training scripts: `labbench.start()` and the `Run` that it returns.

`Run.log` appends to a backlog, a `RunWriterThread` writes the backlog to the database, and `Storage` spills to a file
what the database cannot take. `process_hooks` ends the runs however the process ends.
"""
