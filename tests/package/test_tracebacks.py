"""Tracebacks in which the user's lines stand out."""

from __future__ import annotations

from pathlib import Path

import labbench
from labbench.tracebacks import fold_traceback

ENGINE = str(Path(labbench.__file__).parent / "train" / "loop.py")


def test_calls_in_libraries_are_counted_and_the_users_lines_stay() -> None:
    traceback = f"""Traceback (most recent call last):
  File "{ENGINE}", line 3, in train
    step()
    ^^^^^^
  File "/usr/lib/python3.11/site-packages/torch/nn/modules/module.py", line 9, in __call__
    return forward()
  File "/home/me/task.py", line 12, in forward
    return self.fc(x)
  File "/venv/lib/python3.11/site-packages/torch/nn/functional.py", line 5, in linear
RuntimeError: mat1 and mat2
    second line of the message

The above exception was the direct cause of the following exception:

ValueError: x
"""
    assert (
        fold_traceback(traceback)
        == """Traceback (most recent call last):
  ... 2 calls in libraries ...
  File "/home/me/task.py", line 12, in forward
    return self.fc(x)
  ... 1 call in libraries ...
RuntimeError: mat1 and mat2
    second line of the message

The above exception was the direct cause of the following exception:

ValueError: x"""
    )


def test_a_traceback_without_lines_of_the_user_is_not_folded() -> None:
    traceback = f'Traceback (most recent call last):\n  File "{ENGINE}", line 3, in train\n    step()\nMemoryError\n'
    assert fold_traceback(traceback) == traceback
    assert fold_traceback("not a number of classes") == "not a number of classes"
