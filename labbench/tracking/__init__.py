"""Tracking for people's own scripts: `labbench.start()` and the `Run` that it gives.

`log` appends to a backlog, a `RunWriterThread` empties it into the store, `Storage` keeps what cannot be stored.
`process` sees to it that nothing is lost however the script ends.
"""
