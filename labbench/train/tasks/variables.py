"""Variables of a task's code outside of its models: attributes of the task, numbers and generators of its modules.

A loss may count its calls in an attribute, or draw from a generator of its module or class. Each run begins with the
values after the import, or after `data`, so that its results do not depend on the runs before it in the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from labbench.train.rng import GENERATORS
from labbench.train.tasks.object_state import ObjectState, capture, difference, restore

TASK = "the task"
"""Owner of the attributes of a task."""

_INITIAL: WeakKeyDictionary[Any, dict[str, ObjectState]] = WeakKeyDictionary()
"""Variables of modules and classes when a task first used them in this process, by name."""


class TaskVariables:
    """Variables that the code of a task may change in training, by path such as `the task: self.calls`."""

    def __init__(self, instance: object, modules: Sequence[ModuleType] = ()) -> None:
        """`modules` are the task's file and the local modules that it imports."""
        self._instance = instance
        names = {module.__name__ for module in modules}
        classes = [each for each in type(instance).__mro__ if each.__module__ in names]
        self._owners: list[tuple[str, Any]] = [
            *((Path(str(module.__file__)).name, module) for module in modules if getattr(module, "__file__", None)),
            *((f"class {each.__name__}", each) for each in classes),
        ]
        self._initial = [
            _INITIAL.setdefault(owner, {name: capture(value) for name, value in _shared(owner)})
            for _, owner in self._owners
        ]

    def capture_shared(self) -> list[dict[str, ObjectState]]:
        """Capture the numbers and generators of each module and class, by name."""
        return [{name: capture(value) for name, value in _shared(owner)} for _, owner in self._owners]

    def restore_shared(self, states: Sequence[Mapping[str, ObjectState]] | None = None) -> None:
        """Restore the numbers and generators of modules and classes, by default to their values after the import."""
        for (_, owner), variables in zip(self._owners, self._initial if states is None else states, strict=True):
            for name, state in variables.items():
                if vars(owner).get(name) is not state.value:
                    setattr(owner, name, state.value)
                restore(state, name)

    def capture(self, memo: Mapping[int, ObjectState]) -> dict[str, ObjectState]:
        """Capture all variables by path; `memo` has the states of parts that are not compared, by id."""
        states = dict(memo)
        return {path: capture(vars(owner)[name], states) for path, owner, name in self._paths()}

    def changed_since(self, before: Mapping[str, ObjectState], memo: Mapping[int, ObjectState]) -> dict[str, Any]:
        """Return the variables that differ from `before`, which `capture` returned, by path."""
        return {
            path: state.value
            for path, state in self.capture(memo).items()
            if path not in before or difference(before[path], state) is not None
        }

    def get(self, path: str) -> Any:
        """Return the variable of a path, None if it does not exist."""
        return next((vars(owner)[name] for other, owner, name in self._paths() if other == path), None)

    def set(self, path: str, value: Any) -> None:
        """Set the variable of a path; a path of another task is ignored."""
        owner_name, _, name = path.partition(": ")
        owners = {TASK: self._instance, **dict(self._owners)}
        if owner_name in owners:
            setattr(owners[owner_name], name.removeprefix("self."), value)

    def _paths(self) -> Iterator[tuple[str, Any, str]]:
        """Yield path, owner and name of each variable."""
        for name in getattr(self._instance, "__dict__", {}):
            yield f"{TASK}: self.{name}", self._instance, name
        for owner_name, owner in self._owners:
            for name, _ in _shared(owner):
                yield f"{owner_name}: {name}", owner, name


def _shared(owner: Any) -> list[tuple[str, Any]]:
    """Return the numbers and generators of a module or class by name, except names of Python such as `__doc__`."""
    return [
        (name, value)
        for name, value in vars(owner).items()
        if not name.startswith("__") and (type(value) in (int, float) or isinstance(value, GENERATORS))
    ]
