"""The grid screen: heat map, failures and running runs; keys in, screens out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import LARGE, SIZES, SMALL, compare, golden_name, line_of, press, type_in, use, wait_for_words
from helpers.store_samples import new_run, points, start
from labbench.records import Failed, Finished, NewRun, Started, Submitted
from labbench.store.reader import Reader
from labbench.store.writer import Writer


@SIZES
def test_the_grid_screen_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("grid", size), await press(pilot, "3"))

    use(database, look, size=size)


def test_the_heat_map_uses_the_chosen_keys_and_counts_diverged_runs(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "best val/loss  optimizer by lr, mean over the other keys" in now
        assert re.search(r"│optimizer +lr 0\.001 +lr 0\.01 +lr 1", now)
        assert re.search(r"│adam .*★ ✗1", now)
        await press(pilot, "x")
        await type_in(pilot, "seed")
        now = await press(pilot, "enter")
        assert "optimizer by seed" in now
        await press(pilot, "z")
        await type_in(pilot, "lr")
        now = await press(pilot, "enter")
        assert "lr 0.001" in now
        assert "best val/accuracy" in await press(pilot, "m")

    use(database, look)


def test_a_narrow_terminal_leaves_numbers_of_the_heat_map_out_and_never_cuts_them(database: Path) -> None:
    numbers: dict[int, set[str]] = {}

    async def look(pilot: Pilot[None]) -> None:
        for keys in (["3"], ["right"], ["right"]):
            now = await press(pilot, *keys)
            rows = [row for row in now.splitlines() if re.match(r"│(adam|sgd) ", row)]
            shown = re.findall(r"\d[\d.e-]*", " ".join(row.replace("✗1", "") for row in rows))
            numbers.setdefault(pilot.app.size.width, set()).update(shown)

    use(database, look, size=(120, 40))
    for width in (34, 38, 41, 44, 47):
        use(database, look, size=(width, 40))
        assert numbers[width], width
        assert numbers[width] <= numbers[120], width


def test_a_heat_map_shows_one_experiment_and_the_filter(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        for offset, (experiment, rates) in enumerate({"first": (0.1, 0.2), "second": (0.3, 0.4)}.items()):
            runs = [new_run(2 * offset + number, lr=lr, seed=0) for number, lr in enumerate(rates)]
            writer.write([points(run, "val/loss", [1.0, 0.5]) for run in start(writer, runs, experiment=experiment)])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "second (2 of 2 experiments" in now
        assert re.search(r"│0\.3 ", now)
        assert not re.search(r"│0\.1 ", now)
        await press(pilot, "E")
        await type_in(pilot, "first")
        now = await press(pilot, "enter")
        assert "first (1 of 2 experiments" in now
        assert re.search(r"│0\.1 ", now)
        assert not re.search(r"│0\.3 ", now)

    use(database, look)


def test_the_runs_of_the_highlighted_cell_are_shown_with_their_curves_and_the_effects(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3", "right", "down", "up")
        assert "optimizer adam · lr 0.01  2 runs ─" in now
        assert "best val/loss 0.0621 ± 0.0127 (95 % of the mean)" in now
        assert re.search(r"● s0  0\.0611", now)
        assert re.search(r"◆ s1  0\.0631", now)
        assert re.search(r"─ val/loss +by epoch|─ val/loss  log y", now)
        assert re.search(r"optimizer +\d+% ", now)
        now = await press(pilot, "right")
        assert re.search(r"optimizer adam · lr 1  2 runs", now)
        assert "✗ diverged" in now

    use(database, look)


def test_failures_are_those_of_the_filter(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        await type_in(pilot, "optimizer=adam")
        now = await press(pilot, "enter", "3")
        assert "1 diverged  0 running" in now
        assert "ValueError" not in now

    use(database, look)


def test_failures_name_their_experiment_if_there_are_several(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer, 1, experiment="digits")
        writer.write([Started(run.key, 1, "box", os.getpid(), "cpu"), Failed(run.key, 1, "user", "no file")])
        start(writer, 1, experiment="moons")

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert re.search(r"│run +experiment +reason ", now)
        assert re.search(r"│! run 0 +digits +no file ", now)

    use(tmp_path / "runs.db", look)


def test_enter_on_a_cell_opens_its_runs(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "3", "right")
        assert "compare 2 runs" in await press(pilot, "enter")

    use(database, look)


def test_failures_show_the_last_line_of_their_traceback_and_can_be_retried(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        [run] = start(writer, 1)
        traceback = "Traceback (most recent call last):\n  File\nFileNotFoundError: no data/x.npz\n"
        writer.write([Started(run.key, 1, "box", os.getpid(), "cpu"), Failed(run.key, 1, "user", "no file", traceback)])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "FileNotFoundError: no data/x.npz" in line_of(now, "run 0")
        assert "Traceback" not in now
        now = await press(pilot, "tab")
        assert now.index("Traceback (most recent call last):") < now.rindex("FileNotFoundError: no data/x.npz")
        assert "Traceback" not in await press(pilot, "tab")
        now = await press(pilot, "tab", "enter")
        assert "Traceback (most recent call last):" in now
        await press(pilot, "escape", "r")
        assert "no failures" in await wait_for_words(pilot, "no failures")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count("status=queued") == 1


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x50"])
def test_the_end_of_a_long_traceback_is_shown_for_the_highlighted_failure(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        for number, run in enumerate(start(writer, 3)):
            traceback = "\n".join(
                [f"  line {line} of {number}" for line in range(40)] + [f"ValueError: {number}\x1b[31m"]
            )
            events = [Started(run.key, 1, "box", os.getpid(), "cpu"), points(run, "val/loss", [1.0])]
            writer.write([*events, Failed(run.key, 1, "user", "no file", traceback)])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3", "tab")
        first = next(number for number in range(3) if f"line 39 of {number}" in now)
        assert f"ValueError: {first}␛[31m" in now.splitlines()[-3]
        now = await press(pilot, "j")
        assert f"line 39 of {first}" not in now
        assert "line 39 of" in now

    use(database, look, size=size)


def test_a_running_run_is_listed_and_stopped_from_the_grid(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        [run] = start(writer, 1)
        writer.write([Started(run.key, 1, "box", os.getpid(), "cpu"), points(run, "loss", [1.0, 0.5])])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "1 running on" in now
        assert "stop run 0?" in await press(pilot, "tab", "K")
        await press(pilot, "y")
        assert "stop requested: run 0" in await wait_for_words(pilot, "stop requested")

    use(database, look)
    with Writer(database) as writer:
        assert writer.pop_requests([run.key]) == [(run.key, "stop")]


def test_the_nodes_of_a_cluster_that_train_are_named(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        for number, run in enumerate(start(writer, 2)):
            writer.write([Submitted(run.key, 1, "slurm", "gpus", f"7_{number}")])
            writer.write([Started(run.key, 1, f"node{number}", os.getpid(), "cuda:0"), points(run, "loss", [1.0, 0.5])])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "2 running on node0 cuda:0, node1 cuda:0" in now
        assert "node1 cuda:0 slurm job 7_1" in now

    use(database, look)


def test_a_search_shows_the_runs_left_at_each_rung(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        runs = start(writer, [new_run(number, lr=0.1 * (number + 1), seed=0) for number in range(6)])
        for run, epochs in zip(runs, (2, 2, 2, 2, 6, 18), strict=True):
            writer.write([points(run, "epoch", list(range(epochs + 1))), points(run, "val/loss", [1.0, 0.5])])
            if epochs == 18:
                writer.write([Finished(run.key, 1, "finished", "all epochs")])
            else:
                writer.write([Finished(run.key, 1, "queued", "at a rung")])
                writer.prune({run.key: "rung 1 of 3, 3rd of 6"})
        (new,) = start(writer, [new_run(7, lr=0.6, seed=1)])
        writer.write([points(new, "epoch", list(range(19)))])
        writer.tag([new.key], add=["new-seed"])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert re.search(r"runs left  epoch 2 █+ 6  epoch 6 \S+ 2  epoch 18 \S+ 1", now)
        assert "5 pruned" in now

    use(database, look, size=LARGE)


def test_pruned_runs_are_counted_in_the_heat_map_but_not_averaged(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        runs = start(
            writer, [NewRun(f"run {n}", {"lr": (0.1, 0.2)[n // 2], "seed": n % 2}, f"{n:064x}") for n in range(4)]
        )
        for run, loss in zip(runs, (0.5, 0.9, 0.8, 0.7), strict=True):
            writer.write([points(run, "val/loss", [1.0, loss])])
            writer.write([Finished(run.key, 1, "finished" if run is runs[0] else "queued", "")])
        writer.prune({run.key: "rung 1 of 2" for run in runs[1:]})

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert re.search(r"│0\.1 +0\.5\S* ⊘1 ", now)
        assert re.search(r"│0\.2 +⊘ 2/2 ", now)
        assert re.search(r"best val/loss 0\.5\d* +│", now), "the panel has the mean of the cell"

    use(database, look, size=LARGE)
