"""Divergence of runs that end by themselves: they finish, and their last loss is NaN or infinite."""

from __future__ import annotations

import sqlite3

from labbench.metrics import is_loss
from labbench.store.queries.run_sql import ENDS_FINITE


def mark_divergence(connection: sqlite3.Connection, run_id: int) -> None:
    """Change the status of a finished run to `diverged` if its last value of a loss is not finite.

    The training loop ends such a run itself; scripts and other programs go on, and may exit with status 0. The caller
    holds a transaction, and has written all points.
    """
    query = f"""
        SELECT metrics.name, coalesce(s.first_nonfinite_step, s.last_step)
        FROM summary AS s JOIN metrics ON metrics.id = s.metric_id JOIN runs ON runs.id = s.run_id
        WHERE s.run_id = ? AND runs.status = 'finished' AND NOT {ENDS_FINITE} ORDER BY 2
    """
    for metric, step in connection.execute(query, (run_id,)):
        if isinstance(metric, str) and is_loss(metric):
            reason = f"non-finite {metric} at step {step}"
            connection.execute("UPDATE runs SET status = 'diverged', reason = ? WHERE id = ?", (reason, run_id))
            return
