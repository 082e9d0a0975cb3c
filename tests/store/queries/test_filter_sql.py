"""Filters and sort orders in SQL agree with a direct evaluation in Python."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.store_samples import new_run, points, queue, start
from labbench.errors import FilterError, InputError
from labbench.filters.parser import And, Comparison, Filter, Not, Or, matches_config, parse, uses_key
from labbench.metrics import default_goal
from labbench.records import Finished, NewRun, RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer

NUMBERS = [0, 1, -1, 0.1, 1e-3, 0.30000000000000004, 1e300, math.inf, 64, 2**53 + 1]
TEXTS = ["adam", "Adam W", "none", "true", "1", "0.1", "", "é\"\\'", "É", "-inf", "100%", "x_y"]
LISTS = [[128, 64], [0.1, 1e-05], ["relu", "tänh"], []]
CONFIG_KEYS = ["lr", "optimizer", "batchnorm", "a.b", 'q"uote', "back\\slash", "tab\tbed", "ünï", "val/loss", "n"]
METRICS = ["val/loss", "val/accuracy", "reward", "never"]
WORDS = ["status", "name", "key", "experiment", "tag", "started", "archived"]
FUNCTIONS = ["last", "best", "min", "max", "first", "n"]
ORDERINGS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def fill(writer: Writer, rng: random.Random) -> None:
    runs = []
    for number in range(40):
        keys = rng.sample(CONFIG_KEYS, rng.randrange(len(CONFIG_KEYS)))
        values = [rng.choice([*NUMBERS, *TEXTS, *LISTS, True, False, None]) for _ in keys]
        runs.append(NewRun(rng.choice(TEXTS), dict(zip(keys, values, strict=True)), f"{number}"))
    records = [run for half in (0, 20) for run in queue(writer, runs[half : half + 20], experiment=f"exp {half}")]
    claimed = writer.claim([run.key for run in rng.sample(records, 30)])
    for run in claimed:
        for metric in rng.sample(METRICS[:3], rng.randrange(4)):
            values = [rng.choice([*NUMBERS, math.nan, -math.inf]) for _ in range(rng.randrange(1, 5))]
            writer.write([points(run, metric, values)])
    writer.write([Finished(run.key, 1, rng.choice(["finished", "diverged"]), "so") for run in claimed[:20]])
    for run in records:
        writer.tag([run.key], rng.sample(["best", "BEST 2", "none"], rng.randrange(3)))
    writer.archive([run.key for run in rng.sample(records, 8)])
    days = [datetime(2026, 11, day, hour).timestamp() for day in (1, 2, 30) for hour in (0, 12)]
    for run in claimed:
        writer._connection.execute("UPDATE runs SET started = ? WHERE id = ?", (rng.choice([*days, None]), run.id))


@pytest.fixture(scope="module", params=[1, 2, 3])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = tmp_path_factory.mktemp("query") / "runs.db"
    with Writer(path) as writer:
        fill(writer, random.Random(request.param))
        with Reader(path) as reader:
            yield reader


def matches(tree: Filter, run: RunRecord, reader: Reader) -> bool:
    """Evaluate a filter for one run."""
    if isinstance(tree, Not):
        return not matches(tree.term, run, reader)
    if isinstance(tree, And):
        return all(matches(term, run, reader) for term in tree.terms)
    if isinstance(tree, Or):
        return any(matches(term, run, reader) for term in tree.terms)
    if tree.function is None and tree.key in ("status", "name", "key", "experiment"):
        return matches_config(tree, {tree.key: getattr(run, tree.key)})
    if tree.function is None and tree.key == "archived":
        return matches_config(tree, {"archived": run.archived})
    if tree.function is None and tree.key == "tag":
        return matches_tags(tree, run.tags)
    if tree.function is None and tree.key == "started":
        return matches_day(tree, run.started)
    if tree.function is None and tree.key in run.config:
        return matches_config(tree, run.config)
    return matches_metric(tree, run, reader)


def matches_tags(tree: Comparison, tags: tuple[str, ...]) -> bool:
    if tree.operator == "!=":
        return not matches_tags(Comparison("tag", None, "=", tree.values, tree.texts), tags)
    untagged = tree.operator == "=" and None in tree.values and not tags
    return untagged or any(matches_config(tree, {"tag": tag}) for tag in tags)


def matches_day(tree: Comparison, started: float | None) -> bool:
    if started is None:
        return tree.operator == "=" and None in tree.values
    if tree.operator == "~":
        local_time = datetime.fromtimestamp(started).isoformat(timespec="seconds").lower()
        return any(text.replace(" ", "T").lower() in local_time for text in tree.texts)
    day = f"{datetime.fromtimestamp(started):%Y-%m-%d}"
    if tree.operator in ("=", "!="):
        return (day in tree.texts) == (tree.operator == "=")
    return tree.operator != "~" and ORDERINGS[tree.operator](day, tree.texts[0])


def best_of(run: RunRecord, metric: str) -> float | None:
    """Return the best value of a metric; None for a run that diverged."""
    return None if run.has_diverged(metric) else getattr(run.summary[metric], default_goal(metric))


def matches_metric(tree: Comparison, run: RunRecord, reader: Reader) -> bool:
    summary = run.summary.get(tree.key)
    if summary is None or tree.operator == "~":
        return False
    function = tree.function or "last"
    if function == "first":
        actual = reader.series(run.key, tree.key)[1].tolist()[0]
    elif function == "best":
        actual = best_of(run, tree.key)
    else:
        actual = getattr(summary, function)
    if actual is None:
        return False
    numbers = [value for value in tree.values if type(value) in (int, float)]  # Python compares them exactly
    if tree.operator in ("=", "!="):
        is_listed = any(actual == value or (actual != actual and value != value) for value in numbers)
        return is_listed == (tree.operator == "=")
    return any(ORDERINGS[tree.operator](actual, value) for value in numbers)


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    """Return the text of a comparison of any key, operator and value; some do not parse."""
    key = draw(st.sampled_from(CONFIG_KEYS + METRICS + WORDS))
    value = draw(
        st.sampled_from([str(number) for number in NUMBERS] + ["nan", "-inf", "true", "false", "none", "[128,64]"])
        | st.sampled_from(TEXTS).map(quote)
    )
    if key == "started":
        value = draw(st.sampled_from(["2026-11-01", "2026-11-02", "2026-11-29", "none"]))
    elif key == "status":
        value = draw(st.sampled_from(["queued", "running", "finished", "lost"]))
    elif key == "tag":
        value = draw(st.sampled_from(["best", "'BEST 2'", "none", "b"]))
    if draw(st.booleans()) and key not in WORDS + CONFIG_KEYS[4:8]:
        text = f"{draw(st.sampled_from(FUNCTIONS))}({key})"
    else:
        text = key if key in WORDS else quote(key)
    sign = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]))
    values = [value, *draw(st.lists(st.sampled_from(["1", "adam", "none", "0.1"]), max_size=2))]
    return f"{text}{sign}{','.join(values if sign in ('=', '!=', '~') and key in CONFIG_KEYS else values[:1])}"


EXPRESSIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.lists(inner, min_size=2, max_size=4).map(lambda terms: " ".join(f"({term})" for term in terms)),
        st.lists(inner, min_size=2, max_size=4).map(lambda terms: " or ".join(f"({term})" for term in terms)),
    ),
    max_leaves=6,
)


@given(expression=EXPRESSIONS)
def test_sql_matches_the_same_runs_as_a_direct_evaluation(reader: Reader, expression: str) -> None:
    try:
        tree = parse(expression)
    except FilterError:
        return
    assert tree is not None
    everything = reader.runs("archived=true or archived=false")
    expected = {
        run.key for run in everything if matches(tree, run, reader) and (uses_key(tree, "archived") or not run.archived)
    }
    assert {run.key for run in reader.runs(tree)} == expected
    assert reader.count(tree) == len(expected)
    assert set(reader.keys(tree)) == expected


@given(
    heading=st.sampled_from(CONFIG_KEYS + METRICS[:3])
    | st.builds("{}({})".format, st.sampled_from(FUNCTIONS), st.sampled_from(METRICS[:3])),
    descending=st.booleans(),
)
def test_runs_are_sorted_by_any_number_with_missing_values_last(reader: Reader, heading: str, descending: bool) -> None:
    records = reader.runs(sort=heading, descending=descending)
    assert [run.key for run in records] == reader.keys(sort=heading, descending=descending)
    values = [value_of(run, heading, reader) for run in records]
    numbers = [value for value in values if value is not None]
    assert values[: len(numbers)] == numbers
    if all(isinstance(value, int | float) for value in numbers):
        assert numbers == sorted(numbers, reverse=descending)


def value_of(run: RunRecord, heading: str, reader: Reader) -> float | None:
    function, _, metric = heading.rstrip(")").rpartition("(")
    if not function and heading in run.config:
        return run.config[heading]
    if metric not in run.summary:
        return None
    if function == "first":
        value = reader.series(run.key, metric)[1].tolist()[0]
    elif function == "best":
        value = best_of(run, metric)
    else:
        value = getattr(run.summary[metric], function or "last")
    return None if value is None or math.isnan(value) else value


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[Writer, Reader]]:
    with Writer(tmp_path / "runs.db") as writer, Reader(tmp_path / "runs.db") as reader:
        yield writer, reader


def test_smooth_is_the_mean_of_the_last_points(
    database: tuple[Writer, Reader],
) -> None:
    writer, reader = database
    lucky, steady = start(writer, 2)
    writer.write([points(lucky, "val/loss", [9.0] + [1.0] * 19 + [0.0]), points(steady, "val/loss", [0.5, math.nan])])
    assert reader.keys(sort="last(val/loss)") == [lucky.key, steady.key]
    assert reader.keys(sort="smooth(val/loss)") == [steady.key, lucky.key]
    assert reader.keys("smooth(val/loss)=0.95") == [lucky.key]
    assert reader.keys("smooth(val/loss)<0.6") == [steady.key]
    assert reader.values(["smooth(val/loss)"], sort="smooth(val/loss)")[0][2] == 0.5


def test_archived_runs_match_only_if_the_filter_names_them(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    visible, hidden = queue(writer, 2)
    writer.archive([hidden.key])
    assert reader.keys() == reader.keys("lr=0.1") == reader.keys("not lr=7") == [visible.key]
    assert reader.keys("archived=true") == [hidden.key]
    assert reader.keys("archived=false") == [visible.key]
    assert reader.keys("lr=0.1 (archived=true or archived=false)") == [visible.key, hidden.key]


def test_best_depends_on_the_goal_of_the_metric(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    [run] = start(writer)
    writer.write([points(run, "reward", [1.0, 5.0, 3.0])])
    assert reader.count("best(reward)=5") == 1
    writer.define_metric("reward", "min")
    assert (reader.count("best(reward)=5"), reader.count("best(reward)=1 first(reward)=1 reward=3 n(reward)=3")) == (
        0,
        1,
    )


def test_started_denotes_the_whole_day_hour_minute_or_second(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    [run, _] = queue(writer, 2)
    when = datetime(2026, 11, 30, 14, 30, 20, 500_000)
    writer._connection.execute("UPDATE runs SET started = ? WHERE id = ?", (when.timestamp(), run.id))
    for matching in (
        "started=2026-11-30",
        "started=2026-11-30T14:30",
        "started=2026-11-30T14:30:20",
        "started<=2026-11-30",
        "started>=2026-11-30",
        "started>2026-11-29",
        "started<2026-12-01",
        "started=2026-W49-1",
        "started=2026-11-30T14",
        "started<9999-12-31",
        "started!=2026-12-01",
        "started!=none",
        "'started'>=2026-11-30T14:30:20.5",
    ):
        assert reader.keys(matching) == [run.key], matching
    for other in ("started<2026-11-30", "started>2026-11-30", "started=2026-11-30T14:31", "started!=2026-11-30"):
        assert reader.keys(other) == [], other
    assert len(reader.keys("started=none")) == 1


def test_times_with_a_time_zone_denote_the_same_spans(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    [run] = queue(writer)
    when = datetime(2026, 11, 30, 14, 30, 20, 500_000, UTC)
    writer._connection.execute("UPDATE runs SET started = ? WHERE id = ?", (when.timestamp(), run.id))
    for matching in ("15:30+01:00", "15:30:20+01:00", "143020Z", "14Z", "14:30Z"):
        assert reader.keys(f"started=2026-11-30T{matching}") == [run.key], matching
    for other in ("15:30:21+01:00", "15:31+01:00", "14:30:20.4Z"):
        assert reader.keys(f"started=2026-11-30T{other}") == [], other


def test_config_key_takes_precedence_over_a_time_column_of_the_same_name(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    a, b = queue(writer, [new_run(0, seconds=2), new_run(1, seconds=1)])
    assert reader.keys(sort="seconds") == [b.key, a.key]
    assert reader.keys(sort="created", descending=True) == reader.keys(sort="finished") == [a.key, b.key]


def test_filter_text_never_becomes_sql(database: tuple[Writer, Reader]) -> None:
    """Hostile keys, values, metrics and headings match nothing and do no harm."""
    writer, reader = database
    hostile = "x') OR 1=1; DROP TABLE runs; --"
    [run] = start(writer, [new_run(0, **{hostile: hostile})])
    writer.write([points(run, hostile + "m", [1.0])])
    assert reader.count(Comparison(hostile, None, "=", (hostile,), (hostile,))) == 1
    for key in ("$", '"', "$.lr", "lr'", "*", "?", "lr\0", "", "]", "[0]", '" or 1=1'):
        for sign in ("=", "~"):
            assert reader.count(Comparison(key, None, sign, ("no",), ("no",))) == 0
        with pytest.raises(InputError, match="cannot sort by"):
            reader.runs(sort=key)
    assert reader.runs(sort=hostile) == reader.runs(sort=hostile + "m") == reader.runs(sort=f"max({hostile}m)")


def test_unknown_sort_heading_raises_with_a_suggestion(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    assert reader.runs(sort="val/loss") == []
    [run] = start(writer, [new_run(optimizer="adam")])
    writer.write([points(run, "val/loss", [1.0])])
    with pytest.raises(
        InputError, match="cannot sort by `optimzer`: no such column, config key or metric; did you mean `optimizer`"
    ):
        reader.runs(sort="optimzer")
    with pytest.raises(InputError, match="did you mean `val/loss`"):
        reader.runs(sort="best(val/los)")


def test_filter_of_two_thousand_terms_is_accepted(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    runs = queue(writer, 3)
    terms = " or ".join(f"key={'x' * 7}{number}" for number in range(2000))
    assert reader.keys(f"{terms} or key={runs[1].key}") == [runs[1].key]
    assert reader.count("key=" + ",".join(run.key for run in runs)) == 3


def test_page_sorted_by_a_metric_has_the_best_runs(database: tuple[Writer, Reader]) -> None:
    writer, reader = database
    runs = writer.claim([run.key for run in queue(writer, 1_000)])
    rng = random.Random(0)
    writer.write([points(run, metric, [rng.random()]) for run in runs for metric in ("val/loss", "train/loss")])
    page = reader.runs(sort="best(val/loss)", limit=50)
    best = sorted(run.summary["val/loss"].min for run in reader.runs())[:50]
    assert [run.summary["val/loss"].min for run in page] == best
