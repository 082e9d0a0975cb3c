"""Isolation of the attributes that a task sets on itself in `data` and `model`.

`data` starts with the attributes left by the constructor, `model` with the attributes left by `data`, so that no run
sees what another run has set. The same holds for the variables of the task's modules (`variables`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from labbench.errors import InputError
from labbench.train.tasks.object_state import LARGE, ObjectState, capture, restore
from labbench.train.tasks.variables import TaskVariables


class TaskAttributes:
    """Attributes of a user's task object."""

    def __init__(self, instance: object, modules: Sequence[ModuleType] = ()) -> None:
        """`modules` are the task's file and the local modules that it imports."""
        self._instance, self.variables = instance, TaskVariables(instance, modules)
        self._after_init = self._after_data = capture(instance)
        self._shared_after_data: Sequence[Mapping[str, ObjectState]] | None = None

    @contextmanager
    def during_data(self) -> Iterator[None]:
        """Run `data` with the attributes set by the constructor, then capture the attributes."""
        self.variables.restore_shared()
        with self._restored_to(self._after_init, "data"):
            yield
        self._after_data, self._shared_after_data = self.capture(), self.variables.capture_shared()

    @contextmanager
    def during_model(self) -> Iterator[None]:
        """Run `model` with the attributes left by `data`."""
        self.variables.restore_shared(self._shared_after_data)
        with self._restored_to(self._after_data, "model"):
            yield

    @contextmanager
    def _restored_to(self, attributes: ObjectState, part: str) -> Iterator[None]:
        """Restore the attributes at the start.

        Raises InputError if the block replaces the loss or the metrics.
        """
        restore(attributes)
        before = [getattr(self._instance, name, None) for name in ("loss", "metrics")]
        yield
        for name, value in zip(("loss", "metrics"), before, strict=True):
            if getattr(self._instance, name, None) != value:
                raise InputError(
                    f"the task sets `self.{name}` in {part}(), where it has no effect: "
                    f"define {name} as a method, which may take the config"
                )

    def capture(self, memo: dict[int, ObjectState] | None = None) -> ObjectState:
        """Capture the current state of the attributes."""
        return capture(self._instance, memo)

    def parameters(self) -> dict[str, Tensor]:
        """Return the tensors that require gradients in attributes, modules, lists and dicts, any shape, by path."""
        parameters: dict[str, Tensor] = {}
        _collect_parameters(dict(getattr(self._instance, "__dict__", {})), "self", parameters)
        return parameters

    @contextmanager
    def restore_after(self) -> Iterator[None]:
        """Undo the block's changes of the attributes when it ends."""
        before, shared = self.capture(), self.variables.capture_shared()
        yield
        restore(before)
        self.variables.restore_shared(shared)


def _collect_parameters(value: Any, path: str, parameters: dict[str, Tensor]) -> None:
    """Add the tensors in a value that require gradients to `parameters`, by path."""
    if isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf:
            parameters[path] = value
    elif isinstance(value, nn.Module):
        parameters |= {f"{path}.{name}": parameter for name, parameter in value.named_parameters()}
    elif isinstance(value, dict | list | tuple) and len(value) <= LARGE:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _collect_parameters(item, f"{path}.{key}" if path == "self" else f"{path}[{key!r}]", parameters)
