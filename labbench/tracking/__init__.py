"""Tracking for people's own scripts: `labbench.start()` and the `Run` that it gives.

`hot_path` appends to a backlog, a `Recorder`'s thread empties it into the store, `Storage` keeps what cannot be stored.
`process` sees to it that nothing is lost however the script ends.
"""
