"""Every kind of number, name and step is read back as it was logged; anything else is left out and reported by name.

The tests are strict (LABBENCH_STRICT in conftest.py), except where they start a run with `strict=False`.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labbench
from labbench.errors import InputError
from labbench.records import RunRecord
from labbench.tracking.storage import Batch, Storage
from labbench.tracking.values import MAX_NAME_CHARACTERS, storable_name


@pytest.fixture
def run(tmp_path: Path) -> Iterator[labbench.Run]:
    with labbench.start("a run", db=tmp_path / "runs.db", system_metrics=False) as run:
        yield run


def series(run: labbench.Run, metric: str) -> dict[int, float]:
    """Return the recorded values of a metric by step."""
    assert run.flush()
    with labbench.open(run.path) as db:
        steps, values = db.series(run.key, metric)
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def find_record(run: labbench.Run) -> RunRecord:
    assert run.flush()
    with labbench.open(run.path) as db:
        return db.find(run.key)


def test_steps_count_from_0_or_from_the_last_given_step(run: labbench.Run) -> None:
    run.log({"loss": 1.0})
    run.log({"loss": 2.0})
    run.log({"loss": 3.0}, step=10)
    run.log({"loss": 4.0})
    run.log({"loss": 5.0}, step=5)
    run.log({"loss": 6.0})
    assert series(run, "loss") == {0: 1.0, 1: 2.0, 5: 5.0, 6: 6.0, 10: 3.0, 11: 4.0}


def test_last_value_of_a_step_wins_even_if_steps_go_back(run: labbench.Run) -> None:
    for epoch in range(3):
        for step in range(4):
            run.log({"loss": epoch + step / 10}, step=step)
    assert series(run, "loss") == {0: 2.0, 1: 2.1, 2: 2.2, 3: 2.3}
    summary = find_record(run).summary["loss"]
    assert (summary.n, summary.min, summary.max, summary.last_step) == (4, 2.0, 2.3, 3)


def test_reused_dict_is_copied(run: labbench.Run) -> None:
    metrics: dict[str, Any] = {"loss": 0.0, "val": {"loss": 0.0}}
    for value in range(100):
        metrics["loss"] = metrics["val"]["loss"] = float(value)
        run.log(metrics)
    assert series(run, "loss") == series(run, "val/loss") == {step: float(step) for step in range(100)}


def test_nested_dicts_are_joined_with_slashes(run: labbench.Run) -> None:
    run.log({"train": {"loss": 1.0, "by class": {"cat": 0.5, 2: 0.25}}, "lr": 0.1})
    assert set(find_record(run).summary) == {"train/loss", "train/by class/cat", "train/by class/2", "lr"}


@pytest.mark.parametrize("metrics", [{"val": {"acc": 0.5}, "val/acc": 0.9}, {"val/acc": 0.5, "val": {"acc": 0.9}}])
def test_names_that_collide_are_reported_and_the_later_value_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metrics: dict[str, Any]
) -> None:
    with labbench.start(db=tmp_path / "other.db", system_metrics=False, strict=False) as run:
        run.log({**metrics, "circle": CIRCLE, "loss": 1.0})
        run.log(metrics)
        assert series(run, "val/acc") == {0: 0.9, 1: 0.9}
    message = "labbench: run.log: two values are called `val/acc`; the later one is recorded"
    assert capsys.readouterr().err.splitlines().count(message) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (True, 1.0),
        (2**60 + 1, float(2**60)),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7.0),
        (np.bool_(True), 1.0),
        (np.array(0.25), 0.25),
        (np.array([[0.25]]), 0.25),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (5e-324, 5e-324),
        (1.7976931348623157e308, 1.7976931348623157e308),
    ],
)
def test_every_kind_of_number_is_recorded_exactly(run: labbench.Run, value: Any, number: float) -> None:
    run.log({"x": value})
    assert series(run, "x") == {0: number}


def test_nan_is_recorded_and_counted(run: labbench.Run) -> None:
    run.log({"x": 1.0})
    run.log({"x": math.nan})
    assert math.isnan(series(run, "x")[1])
    summary = find_record(run).summary["x"]
    assert (summary.n, summary.n_nonfinite, summary.first_nonfinite_step, summary.max) == (2, 1, 1, 1.0)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(), max_size=50))
def test_any_floats_are_recorded_exactly(run: labbench.Run, values: list[float]) -> None:
    """Except for the sign of zero, which SQLite does not store."""
    metric = f"x{len(run.summary)}"
    for step, value in enumerate(values):
        run.log({metric: value}, step=step)
    recorded = list(series(run, metric).values())
    assert list(map(repr, recorded)) == [repr(value + 0.0) for value in values]


def test_later_changes_of_a_tensor_do_not_change_the_logged_value(run: labbench.Run) -> None:
    torch = pytest.importorskip("torch")
    loss = torch.tensor(1.0, requires_grad=True)
    half = torch.tensor([0.5], dtype=torch.bfloat16)
    run.log({"loss": loss * 2, "half": half, "count": torch.tensor(3)})
    half += 1
    assert series(run, "loss") == {0: 2.0}
    assert series(run, "half") == {0: 0.5}
    assert series(run, "count") == {0: 3.0}


class OnGpu:
    """Minimal stand-in for a tensor on a GPU."""

    is_cuda = False
    device = type("device", (), {"type": "mps"})

    def __init__(self, value: float, fetching_threads: list[str]) -> None:
        self.value, self.fetching_threads = value, fetching_threads

    def numel(self) -> int:
        return 1

    def detach(self) -> OnGpu:
        return self

    def clone(self) -> OnGpu:
        return OnGpu(self.value, self.fetching_threads)

    def item(self) -> float:
        self.fetching_threads.append(threading.current_thread().name)
        if self.value < 0:
            raise RuntimeError("the device is gone")
        return self.value


def test_tensor_on_a_gpu_is_copied_there_and_fetched_by_the_writer_thread(run: labbench.Run) -> None:
    fetching_threads: list[str] = []
    tensor = OnGpu(0.5, fetching_threads)
    run.log({"loss": tensor, "lr": 0.1})
    tensor.value = 7.0
    assert series(run, "loss") == {0: 0.5}
    assert fetching_threads == [f"labbench {run.key}"]


def test_tensor_that_cannot_be_read_from_its_gpu_causes_a_warning(
    run: labbench.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.log({"gone": OnGpu(-1.0, []), "lr": 0.1})
    assert series(run, "lr") == {0: 0.1}
    assert series(run, "gone") == {}
    assert (
        "`gone` could not be read from its device and was not recorded: the device is gone" in capsys.readouterr().err
    )


class BrokenText:
    """Object whose text conversion fails."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class BrokenNumber:
    """Object whose conversion to a number fails in an unforeseen way."""

    @property
    def device(self) -> str:
        raise ZeroDivisionError


CIRCLE: dict[str, Any] = {}
CIRCLE["again"] = CIRCLE


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": "0.5"}, "`loss` must be a number, not '0.5' (str)"),
        ({"loss": None, "accuracy": 1.0}, "`loss` must be a number, not None (NoneType)"),
        ({"train": {"loss": [1.0]}}, "`train/loss` must be a number, not [1.0] (list)"),
        ({"x": 1j}, "`x` must be a number, not 1j (complex)"),
        ({"x": np.zeros((2, 3))}, "`x` must be one number, not an array of shape (2, 3)"),
        ({"x": np.ma.masked}, "`x` is masked, so it has no value"),
        ({"x": np.ma.masked_invalid([math.nan]).mean()}, "`x` is masked, so it has no value"),
        ({"x": np.ma.masked_array([3.0], mask=[True])}, "`x` is masked, so it has no value"),
        ({"x": np.str_("a")}, "`x` must be a number, not"),
        ({"x": 10**400}, "`x` is an integer too large for a float: 1000"),
        ({"x": 10**5000}, "`x` is an integer too large for a float: 0x"),
        ({"x": BrokenText()}, "`x` must be a number, not <BrokenText, whose text conversion raised RuntimeError>"),
        (CIRCLE, "dicts are nested more than 100 deep: `again/again/"),
        ({"x": "y" * 1000}, "…"),
        ({"x": BrokenNumber()}, "`x` must be a number, not"),
        (None, "run.log takes a dict of numbers by name, not NoneType"),
        ([("loss", 1.0)], "run.log takes a dict of numbers by name, not list"),
    ],
)
def test_invalid_value_is_rejected_by_name(run: labbench.Run, metrics: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        run.log(metrics)
    assert message in str(raised.value)
    run.log({"loss": 2.0})
    assert series(run, "loss") == {0: 2.0}  # the rejected call did not count as a step


def test_tensor_of_several_elements_is_rejected_with_its_shape(run: labbench.Run) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"`x` must be one number, not an array of shape \(2,\)"):
        run.log({"x": torch.ones(2)})


@pytest.mark.parametrize(
    "step",
    [math.nan, math.inf, 1.5, "3", None.__class__, [1], 2**62 + 1, -(2**70), pytest.param(10**5000, id="endless")],
)
def test_step_that_is_not_an_integer_is_rejected(run: labbench.Run, step: Any) -> None:
    with pytest.raises(InputError, match="the step"):
        run.log({"loss": 1.0}, step=step)


@pytest.mark.parametrize("step", [3.0, np.int32(3), np.float64(3.0), True + 2, Decimal(3)])
def test_any_whole_number_is_a_valid_step(run: labbench.Run, step: Any) -> None:
    run.log({"loss": 1.0}, step=step)
    run.log({"loss": 2.0}, step=-(2**62))
    assert series(run, "loss") == {-(2**62): 2.0, 3: 1.0}


def test_epoch_is_recorded_as_a_metric(run: labbench.Run) -> None:
    run.log({"loss": 1.0}, step=100, epoch=2)
    run.log({}, epoch=2.5)
    assert series(run, "epoch") == {100: 2.0, 101: 2.5}


def test_next_call_after_one_without_commit_is_recorded_at_the_same_step(run: labbench.Run) -> None:
    for commit in (False, True, False, False, True):
        run.log({"loss": 1.0, f"committed {commit}": 1.0}, commit=commit)
    run.log({"val/loss": 1.0}, step=7, commit=False)
    run.log({"loss": 1.0})
    assert list(series(run, "loss")) == [0, 1, 7]
    assert list(series(run, "committed True")) == list(series(run, "committed False")) == [0, 1]


def test_empty_dict_counts_as_a_step(run: labbench.Run) -> None:
    run.log({})
    run.log({"loss": 1.0})
    assert series(run, "loss") == {1: 1.0}


@pytest.mark.parametrize("metrics", [OrderedDict(loss=1.0), MappingProxyType({"loss": 1.0})])
def test_any_mapping_can_be_logged(run: labbench.Run, metrics: Any) -> None:
    run.log(metrics)
    assert series(run, "loss") == {0: 1.0}


def test_control_characters_in_names_are_escaped(run: labbench.Run) -> None:
    run.log({"a\nb\x1b[31m": 1.0, "": 2.0, "tab\t": {"\x9b": 3.0}, "ünï😀": 4.0})
    assert set(find_record(run).summary) == {"a\\x0ab\\x1b[31m", "(no name)", "tab\\x09/\\x9b", "ünï😀"}


def test_long_names_are_cut_and_stay_distinct(run: labbench.Run) -> None:
    run.log({"x" * 10_000: 1.0, "x" * 10_001: 2.0})
    first, second = find_record(run).summary
    assert len(first) == len(second) == MAX_NAME_CHARACTERS
    assert first != second
    assert run.summary["x" * 10_000] == 1.0


@given(st.text())
def test_storable_name_is_idempotent(key: str) -> None:
    name = storable_name(key)
    assert storable_name(name) == name
    assert name
    assert len(name) <= MAX_NAME_CHARACTERS


def test_names_with_lone_surrogates_are_recorded(run: labbench.Run) -> None:
    run.log({"half a pair \ud800": 1.0, "loss": 1.0})
    assert len(find_record(run).summary) == 2


def test_several_threads_log_to_one_run(run: labbench.Run) -> None:
    def work(number: int) -> None:
        for value in range(500):
            run.log({f"thread {number}": float(value), "any": 1.0})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert series(run, "any").keys() == set(range(2000))
    assert all(list(series(run, f"thread {number}").values()) == [*map(float, range(500))] for number in range(4))


def test_each_call_is_recorded_with_its_time(run: labbench.Run) -> None:
    for _ in range(5):
        run.log({"loss": 1.0})
        threading.Event().wait(0.004)
    run.flush()
    with labbench.open(run.path) as db:
        times = db.times(run.key, "loss")
    assert (np.diff(times) >= 3).all()


def test_summary_returns_last_values_and_logs_assigned_ones(run: labbench.Run) -> None:
    run.log({"loss": 1.0}, step=5)
    run.log({"loss": 0.5}, step=6)
    run.summary["best/accuracy"] = 0.97
    run.summary.update({"test": {"loss": np.float32(0.25)}})
    assert dict(run.summary) == {"loss": 0.5, "best/accuracy": 0.97, "test/loss": 0.25}
    assert series(run, "best/accuracy") == {6: 0.97}
    assert find_record(run).summary["test/loss"].last == 0.25
    with pytest.raises(InputError, match="`best` must be a number"):
        run.summary["best"] = "adam"
    with pytest.raises(KeyError):
        run.summary["nothing"]


def test_more_calls_than_the_backlog_holds_are_all_recorded(run: labbench.Run) -> None:
    for step in range(30_000):
        run.log({"loss": 0.5}, step=step)
    assert find_record(run).summary["loss"].n == 30_000


def test_log_after_the_end_of_the_run_raises(tmp_path: Path) -> None:
    run = labbench.start(db=tmp_path / "runs.db")
    run.finish()
    run.finish()
    with pytest.raises(InputError, match=f"run {run.key} has ended"):
        run.log({"loss": 1.0})


@pytest.fixture
def lenient_run(tmp_path: Path) -> Iterator[labbench.Run]:
    """Start a run as users do, not strict as the other tests."""
    with labbench.start("a run", db=tmp_path / "runs.db", system_metrics=False, strict=False) as run:
        yield run


@pytest.mark.parametrize(
    "value", ["text", None, [1, 2], np.zeros((2, 3)), 1j, 10**400, object(), BrokenText(), BrokenNumber(), np.ma.masked]
)
def test_value_that_is_no_number_is_reported_once_and_the_rest_recorded(
    lenient_run: labbench.Run, capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    for _ in range(3):
        lenient_run.log({"bad": value, "deep": {"bad": value}, "loss": 1.0}, epoch=value)
    assert series(lenient_run, "loss") == {0: 1.0, 1: 1.0, 2: 1.0}
    assert set(find_record(lenient_run).summary) == {"loss"}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("`")[1] for line in lines] == ["bad", "deep/bad"] + ["epoch"] * (value is not None)
    assert all(line.endswith("; it is not recorded") for line in lines)


@pytest.mark.parametrize("metrics", [None, "x", 3, [("loss", 1.0)], CIRCLE])
def test_call_without_a_dict_of_numbers_is_reported_once(
    lenient_run: labbench.Run, capsys: pytest.CaptureFixture[str], metrics: Any
) -> None:
    for _ in range(3):
        lenient_run.log(metrics)
        lenient_run.summary.update(metrics)
    lenient_run.log({"loss": 1.0}, step=7)
    assert series(lenient_run, "loss") == {7: 1.0}
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("step", "used"), [("3", 3), ("3.5", 1), (2.5, 1), (math.nan, 1), (-1, -1), (2**70, 1), ([1], 1), (BrokenText(), 1)]
)
def test_numbers_at_a_step_that_is_no_whole_number_are_recorded(
    lenient_run: labbench.Run, capsys: pytest.CaptureFixture[str], step: Any, used: int
) -> None:
    lenient_run.log({"loss": 1.0})
    lenient_run.log({"loss": 2.0}, step=step)
    lenient_run.log({"loss": 3.0})
    assert series(lenient_run, "loss") == {0: 1.0, used: 2.0, used + 1: 3.0}
    assert ("run.log: the step" in capsys.readouterr().err) == (step != -1)


def test_number_of_reported_problems_is_bounded(lenient_run: labbench.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for step in range(1_000):
        lenient_run.log({f"text {step}": "x"})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 100
    assert lines[-1].endswith("further problems of this run are not reported")


def test_calls_after_the_end_are_reported_once(lenient_run: labbench.Run, capsys: pytest.CaptureFixture[str]) -> None:
    lenient_run.log({"loss": 1.0})
    lenient_run.finish()
    for _ in range(3):
        lenient_run.finish()
        lenient_run.log({"loss": 2.0})
        lenient_run.tag("late")
        lenient_run.note("late")
        lenient_run.config.late = True
        lenient_run.summary["loss"] = 3.0
        lenient_run.define_metric("loss", goal="max")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "has ended before: finish() changes nothing" in lines[0]
    assert "has ended: nothing more can be logged to it; what is logged from now on is lost" in lines[1]
    stored = find_record_after_end(lenient_run)
    assert (stored.tags, stored.note, stored.summary["loss"].n) == ((), None, 1)


def test_steps_count_on_from_the_largest_valid_step(run: labbench.Run) -> None:
    run.log({"loss": 1.0}, step=2**62)
    run.log({"loss": 2.0})
    assert series(run, "loss") == {2**62: 1.0, 2**62 + 1: 2.0}


def test_batch_that_can_never_be_written_does_not_block_the_others(
    run: labbench.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put = Storage.put

    def broken(storage: Storage, batch: Batch, *, immediately: bool = False) -> bool:
        if any(points.metric == "poison" for points in batch.points):
            raise OverflowError("as from an error in labbench")
        return put(storage, batch, immediately=immediately)

    monkeypatch.setattr(Storage, "put", broken)
    run.log({"poison": 1.0})
    run.flush()
    run.log({"loss": 1.0})
    assert series(run, "loss") == {1: 1.0}
    run.finish()
    assert find_record_after_end(run).status == "finished"
    assert "1 log calls were lost" in capsys.readouterr().err


def find_record_after_end(run: labbench.Run) -> RunRecord:
    with labbench.open(run.path) as db:
        return db.find(run.key)


def test_a_figure_is_reported_with_the_class_to_log_it_by() -> None:
    class Figure:
        def savefig(self, path: str) -> None: ...

    with labbench.start() as run:
        with pytest.raises(InputError, match=r"`plot` must be a number, .*; log a figure .* as labbench.Image"):
            run.log({"plot": Figure()})
        with pytest.raises(InputError, match=r"\(str\)$"):
            run.log({"text": "a"})
