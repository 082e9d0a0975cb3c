"""A run is lost if its process has ended, not if its heartbeat is late."""

from __future__ import annotations

import os
import time

import pytest

from labbench.store import liveness
from labbench.store.liveness import HOST, is_lost


def test_live_process_on_this_host_is_not_lost_despite_a_late_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "LOST_AFTER_SECONDS", -1.0)
    assert is_lost(time.time(), "elsewhere", os.getpid())
    if liveness._start_time(os.getpid()) is None:
        pytest.skip("this system does not report the start time of a process")
    assert not is_lost(time.time(), HOST, os.getpid())


def test_later_process_with_the_same_id_is_not_the_driver() -> None:
    if liveness._start_time(os.getpid()) is None:
        pytest.skip("this system does not report the start time of a process")
    assert is_lost(time.time() - 1e6, HOST, os.getpid())
