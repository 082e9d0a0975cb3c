"""A run is lost when its process is gone, not when it is late."""

from __future__ import annotations

import os
import time

import pytest

from labbench.store import liveness
from labbench.store.liveness import HOST, is_lost


def test_on_this_host_the_process_decides_however_late_it_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "LOST_AFTER_SECONDS", -1.0)
    assert is_lost(time.time(), "elsewhere", os.getpid())
    if liveness._start_time(os.getpid()) is None:
        pytest.skip("this system does not tell when a process began")
    assert not is_lost(time.time(), HOST, os.getpid())


def test_another_process_that_got_the_number_since_is_not_the_driver() -> None:
    if liveness._start_time(os.getpid()) is None:
        pytest.skip("this system does not tell when a process began")
    assert is_lost(time.time() - 1e6, HOST, os.getpid())
