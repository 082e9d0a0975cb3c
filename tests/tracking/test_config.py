"""Configs as people have them become plain JSON, which is equal for equal values in every process."""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import datetime
import enum
import fractions
import functools
import json
import math
import os
import subprocess
import sys
import typing
import uuid
import warnings
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import attrs
import numpy as np
import omegaconf
import pydantic
import pytest
import torch

import labbench
from labbench.tracking.config import plain_config

Point = collections.namedtuple("Point", "x y")


class Line(typing.NamedTuple):
    start: Any
    width: int = 3


class Colour(enum.Enum):
    RED = 1


class Activation(str, enum.Enum):  # noqa: UP042 (as in code for Python 3.10)
    RELU = "relu"


class Size(enum.IntEnum):
    SMALL = 8


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Model:
    net: Any
    width: int = 8
    size: typing.ClassVar[int] = 3


def schedule(step: int) -> float:
    return 1 / step


def plain_value(value: Any) -> Any:
    return plain_config({"x": value})["x"]


VALUES = {
    "list of dicts": ([{"type": "conv", "width": 16}, {"act": torch.nn.ReLU}],
                      [{"type": "conv", "width": 16}, {"act": "torch.nn.modules.activation.ReLU"}]),
    "enum": (Colour.RED, "Colour.RED"),
    "enum of text": (Activation.RELU, "relu"),
    "enum of integers": (Size.SMALL, 8),
    "flags": (Access.READ | Access.WRITE, "Access.READ|WRITE"),
    "path": (Path("a/b"), "a/b"),
    "dtype": (torch.float16, "torch.float16"),
    "numpy dtype": (np.dtype("float32"), "float32"),
    "device": (torch.device("cuda:0"), "cuda:0"),
    "size": (torch.Size([2, 3]), [2, 3]),
    "set": ({10, 9, 2, "b", "a"}, [2, 9, 10, "a", "b"]),
    "set of tuples": (frozenset({("b", 1), ("a", 2)}), [["a", 2], ["b", 1]]),
    "array": (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    "masked array": (np.ma.array([1.0, 2.0], mask=[False, True]), [1.0, None]),
    "tensor": (torch.tensor([0.5], requires_grad=True), [0.5]),
    "scalars": ([np.float64(0.1), np.int64(3), np.bool_(True), torch.tensor(2)], [0.1, 3, True, 2]),
    "times": ([datetime.datetime(2026, 1, 2), datetime.timedelta(hours=1), np.datetime64("2026-01-02", "ns")],
              ["2026-01-02T00:00:00", "1:00:00", "2026-01-02T00:00:00.000000000"]),
    "bytes": (b"abc", "b'abc'"),
    "numbers": ([fractions.Fraction(1, 3), 1 + 2j, range(3)], ["1/3", "(1+2j)", "range(0, 3)"]),
    "uuid": (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "function": (schedule, f"{__name__}.schedule"),
    "lambda": (lambda x: x, f"{__name__}.<lambda>"),
    "class": (torch.optim.SGD, "torch.optim.sgd.SGD"),
    "built-in": ([len, int], ["len", "int"]),
    "type": ([list[int], typing.Union[int, str]], ["list[int]", "typing.Union[int, str]"]),  # noqa: UP007
    "module": (json, "json"),
    "views": ([{"b": 1, "a": 2}.keys(), {"b": 1}.values(), collections.deque([1, 2])], [["a", "b"], [1], [1, 2]]),
    "dataclass in a list": ([Model(1)], [{"net": 1, "width": 8}]),
}  # fmt: skip


@pytest.mark.parametrize(("value", "json_value"), VALUES.values(), ids=VALUES)
def test_value_becomes_json_without_a_warning(value: Any, json_value: Any) -> None:
    with warnings.catch_warnings(action="error") if sys.version_info >= (3, 12) else warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plain_value(value) == json_value


NESTED = {
    "partial": (functools.partial(torch.optim.SGD, lr=0.1), {"x._target_": "torch.optim.sgd.SGD", "x.lr": 0.1}),
    "partial with arguments": (functools.partial(max, 1, 2), {"x._target_": "max", "x._args_": [1, 2]}),
    "named tuples": (Line(Point(1, 2)), {"x.start.x": 1, "x.start.y": 2, "x.width": 3}),
    "namespaces": (SimpleNamespace(a=argparse.Namespace(b=1)), {"x.a.b": 1}),
    "mapping": (MappingProxyType({"a": {"b": 1}}), {"x.a.b": 1}),
    "dataclass": (Model(Model({"deep": 1})), {"x.net.net.deep": 1, "x.net.width": 8, "x.width": 8}),
    "keys": (
        {Colour.RED: 1, Activation.RELU: 2, 7: 3, None: 4, 0.5: 5, (1, "a"): 6, np.int64(9): 7, True: 8},
        {"x.Colour.RED": 1, "x.relu": 2, "x.7": 3, "x.None": 4, "x.0.5": 5, "x.(1, 'a')": 6, "x.9": 7, "x.True": 8},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("value", "flat"), NESTED.values(), ids=NESTED)
def test_named_values_become_keys(value: Any, flat: dict[str, Any]) -> None:
    assert plain_config({"x": value}) == flat
    assert plain_config(SimpleNamespace(x=value)) == flat


def test_named_tuple_is_a_config() -> None:
    assert plain_config(Line(0.1)) == {"start": 0.1, "width": 3}


class Base:
    """Configuration of many projects: attributes of a class."""

    lr = 0.1
    width = 8
    layers = (1, 2)


class Settings(Base):
    """Configuration with defaults, a nested class, and what is no setting."""

    class data:  # noqa: N801
        name = "digits"

    width = 16
    _private = 1
    root = Path("data")

    @property
    def derived(self) -> int:
        return 2 * self.width

    def method(self) -> None: ...


def test_attributes_of_a_class_are_a_config() -> None:
    expected = {"lr": 0.1, "width": 16, "layers": [1, 2], "data.name": "digits", "root": "data"}
    assert plain_config(Settings) == expected
    settings = Settings()
    settings.lr = 0.3
    settings.data = Settings.data()  # as configs of robots do
    settings.data.batch = 4  # type: ignore[attr-defined]
    assert plain_config(settings) == expected | {"lr": 0.3, "data.batch": 4}


def test_attributes_of_a_module_are_a_config() -> None:
    module = ModuleType("settings")
    module.__dict__.update(lr=0.1, json=json, sqrt=math.sqrt, optimizer=torch.optim.SGD, _private=1)
    assert plain_config(module) == {"lr": 0.1}


class Pretrained:
    """Configuration that makes a dict of itself, as those of transformers do."""

    def to_dict(self) -> dict[str, Any]:
        return {"hidden": 64, "rope": {"theta": 1e4}}


def test_object_that_makes_a_dict_of_itself_is_nested() -> None:
    assert plain_config(Pretrained()) == {"hidden": 64, "rope.theta": 1e4}
    assert plain_config({"models": [Pretrained()]}) == {"models": [{"hidden": 64, "rope": {"theta": 1e4}}]}


class Augmentation:
    """Object whose default text holds its address."""


class Unreadable(collections.abc.Mapping[str, Any]):
    """Mapping whose values are lost, such as that of a closed file."""

    def __iter__(self) -> Any:
        raise OSError("closed")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, name: str) -> Any:
        raise OSError("closed")


class Untextual:
    """Object of which nothing can be read."""

    def __repr__(self) -> str:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_object_is_stored_as_text_without_its_address() -> None:
    objects = {
        "augment": Augmentation(), "net": torch.nn.Linear(2, 3), "rng": np.random.default_rng(0),
        "generator": torch.Generator(), "mock": Mock(),
    }  # fmt: skip
    with pytest.warns(UserWarning, match=r"`augment` \(Augmentation\) is stored as text; `net` \(Linear\)"):
        plain = plain_config(objects)
    assert plain == {
        "augment": f"<{__name__}.Augmentation object>",
        "net": "Linear(in_features=2, out_features=3, bias=True)",
        "rng": "Generator(PCG64)",
        "generator": "<torch._C.Generator object>",
        "mock": "<Mock id=''>",
    }


def test_value_that_cannot_be_read_is_null_and_stops_nothing() -> None:
    with pytest.warns(UserWarning, match=r"`bad` \(OSError\) cannot be read, stored as null"):
        assert plain_config({"bad": Unreadable(), "lr": 0.1}) == {"bad": None, "lr": 0.1}
    with pytest.warns(UserWarning, match=r"`worse` \(Untextual\) is stored as text"):
        assert plain_config({"worse": Untextual()})["worse"].startswith("<Untextual")


def test_not_finite_numbers_are_kept(tmp_path: Path) -> None:
    config = {"a": math.nan, "b": [math.inf, -math.inf, math.nan], "c": np.float32("inf")}
    with labbench.start(db=tmp_path / "runs.db", config=config, system_metrics=False) as run:
        pass
    with labbench.open(run.path) as db:
        [stored] = db.runs()
    assert stored.config == {"a": "nan", "b": [math.inf, -math.inf, "nan"], "c": math.inf}


def test_structures_without_end_are_bounded() -> None:
    circle: dict[str, Any] = {"lr": 0.1}
    circle["self"] = circle
    deep: list[Any] = []
    level = deep
    for _ in range(100_000):
        level.append([])
        level = level[0]
    wide: list[Any] = [1]
    for _ in range(40):
        wide = [wide] * 10
    with pytest.warns(UserWarning, match="stored as JSON") as caught:
        plain = plain_config({"circle": circle, "deep": deep, "wide": wide, "seed": 1})
    assert len(json.dumps(plain)) < 200_000
    assert (plain["circle.lr"], plain["seed"], plain["circle.self"]) == (0.1, 1, "<dict, which contains itself>")
    text = str(caught[0].message)
    assert "`circle.self` (dict) contains itself, it is not stored" in text
    assert "`deep` (list) is nested too deeply" in text
    assert len(text) < 1_000


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda last: np.append(np.zeros(10**6), last), "<array of 1000001, float64, sha256 "),
        (lambda last: torch.full((999, 999), last, dtype=torch.bfloat16), "<array of 999x999, torch.bfloat16, sha256 "),
        (lambda last: [0] * 10**6 + [last], "<list of 1,000,001 items, sha256 "),
        (lambda last: {**{str(index): index for index in range(5_000)}, "z": last}, "<dict of 5,001 items, sha256 "),
        (lambda last: {*range(5_000), str(last)}, "<set of 5,001 items, sha256 "),
        (lambda last: bytes(1000) + bytes([last]), "<1,001 bytes, sha256 "),
    ],
)  # fmt: skip
def test_large_value_is_described_by_its_size_and_hash(make: Any, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, same, other = (plain_config({"x": make(last)})["x"] for last in (1, 1, 2))
    assert one.startswith(text)
    assert len(one) < 100
    assert one == same != other


def test_keys_that_collide_warn_and_the_later_value_is_stored() -> None:
    with pytest.warns(UserWarning, match="`model.width` is set twice, the later value is stored"):
        assert plain_config({"model.width": 256, "model": {"width": 128}}) == {"model.width": 128}
    with pytest.warns(UserWarning, match="`x.1` is set twice"):
        assert plain_config({"x": {1: "a", "1": "b"}}) == {"x.1": "b"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plain_config({"model.width": 256, "model": {"width": 256}}) == {"model.width": 256}


EVERY_PROCESS = """
import functools, json, sys, warnings, numpy, torch
from argparse import Namespace
from labbench.tracking.config import plain_config

class Augment: pass
def train(args): pass

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    names = ["alpha", "beta", "gamma", "delta"]
    config = Namespace(
        func=train, augment=Augment(), names=set(names), frozen={frozenset(names): 1}, method=Augment().__init__,
        partial=functools.partial(train, Augment()), act=torch.relu, net=torch.nn.Linear(2, 2),
        keys=dict.fromkeys(names).keys(), generator=(x for x in names), rng=numpy.random.RandomState(0),
        big=set(map(str, range(2000))), step=torch.optim.SGD.step,
    )
    print(json.dumps(plain_config(config)))
"""


def test_equal_configs_are_equal_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EVERY_PROCESS)
    outputs = [
        subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "0x" not in outputs[0]


def test_omegaconf_is_resolved_and_missing_values_are_null() -> None:
    content = {
        "lr": 0.1, "wd": "${lr}", "rank": "???", "broken": "${nowhere.at.all}", "note": None, 3: "three",
        "model": {"hidden": [128, 64], "blocks": [{"c": "${lr}"}, {"c": "???"}], "sizes": ["${lr}", "???"]},
    }  # fmt: skip
    config = omegaconf.OmegaConf.create(content)
    with pytest.warns(UserWarning, match="stored as null") as caught:
        plain = plain_config(config)
    assert plain == {
        "lr": 0.1, "wd": 0.1, "rank": None, "broken": None, "note": None, "3": "three",
        "model.hidden": [128, 64], "model.blocks": [{"c": 0.1}, {"c": None}], "model.sizes": [0.1, None],
    }  # fmt: skip
    text = str(caught[0].message)
    for note in (
        "`rank` (MissingMandatoryValue)",
        "`broken` (Interpolation",
        "`model.blocks.c` (Missing",
        "`model.sizes`",
    ):
        assert note in text
    assert plain_config({"cfg": config.model.hidden}) == {"cfg": [128, 64]}


def test_pydantic_models_are_nested_and_never_store_a_secret(tmp_path: Path) -> None:
    class Login(pydantic.BaseModel):
        user: str = "me"
        password: pydantic.SecretStr = pydantic.SecretStr("hunter2")
        key: pydantic.SecretBytes = pydantic.SecretBytes(b"hunter2")
        internal: str = pydantic.Field("hunter2", exclude=True)

    class Settings(pydantic.BaseModel, extra="allow"):
        lr: float = 0.1
        login: Login = Login()
        logins: list[Login]
        tags: set[str]
        _private: str = "hunter2"

    class Optimizers(pydantic.RootModel[dict[str, float]]):
        pass

    config = {
        "settings": Settings(logins=[Login()], tags={"b", "a"}, more={"x": 1}),
        "optimizers": Optimizers({"adam": 0.1}),
        "token": pydantic.SecretStr("hunter2"),
    }
    with labbench.start(db=tmp_path / "runs.db", config=config, system_metrics=False) as run:
        assert dict(run.config) == {
            "settings.lr": 0.1,
            "settings.login.user": "me",
            "settings.login.password": "**********",
            "settings.login.key": "**********",
            "settings.logins": [{"user": "me", "password": "**********", "key": "**********"}],
            "settings.tags": ["a", "b"],
            "settings.more.x": 1,
            "optimizers.adam": 0.1,
            "token": "**********",
        }
    assert not any(b"hunter2" in file.read_bytes() for file in tmp_path.glob("runs.db*") if file.is_file())
    assert plain_config(Login())["user"] == "me"
    assert plain_config(Optimizers({"sgd": 1.0})) == {"sgd": 1.0}


def test_attrs_classes_with_slots_are_nested() -> None:
    @attrs.define
    class Inner:
        width: int = 8

    @attrs.frozen
    class Outer:
        inner: Inner = attrs.field(factory=Inner)
        sizes: tuple[int, ...] = (1, 2)

    assert plain_config(Outer()) == {"inner.width": 8, "sizes": [1, 2]}
    assert plain_config({"outer": [Outer()]}) == {"outer": [{"inner": {"width": 8}, "sizes": [1, 2]}]}
