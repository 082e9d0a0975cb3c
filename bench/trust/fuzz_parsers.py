"""Damaged grid files, filters, lists of layers and CSV cells, read in one process.

An input is accepted, or refused with an error of labbench; nothing takes longer than `MAX_SECONDS`.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.trust.fuzz_databases import Hang, describe_error, time_limit
from bench.trust.mutations import mutate_text
from bench.trust.results import Outcome, keep_input
from bench.trust.samples import write_sample
from labbench.errors import LabbenchError
from labbench.filters.completion import Vocabulary, complete
from labbench.filters.parser import matches_config, parse
from labbench.grid import expand, new_runs, read_grid
from labbench.importing.csv_file import read_points
from labbench.params import TRAINING, BadItem, builtin
from labbench.params.layers import LayerError, check_words, read_layers
from labbench.store.reader import Reader

INPUTS_PER_TRIAL = 50
"""Inputs of each kind in one trial."""

ROOT = Path(__file__).parents[2]

Check = Callable[[str], None]


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial: some inputs of each kind."""
    reader = Reader(write_sample(folder / "sample.db", runs=4, points=5))
    grids = [path.read_text() for path in sorted(ROOT.glob("experiments/*.toml"))]
    documents = [*ROOT.glob("docs/reference/*.md"), *ROOT.glob("labbench/cli/help.py")]
    filters = [
        word
        for path in documents
        for word in re.findall(r"`([^`\n]{3,60})`", path.read_text())
        if re.search("[=<>~]", word)
    ]
    layers = [
        "conv 16x3",
        "relu",
        "maxpool 2",
        "flatten",
        "linear 10",
        "dropout 0.5",
        "batchnorm",
        "avgpool 2",
        "conv 8",
    ]
    cells = ["1", "0.5", "-1e-3", "nan", "inf", "1.0", "train/loss", "run 1", "2026-11-30", "1,5", "=SUM(A1)", '"a""b"']
    header = "run,name,experiment,metric,step,time,value"

    def read_filter(text: str) -> None:
        tree = parse(text)
        matches_config(tree, {"lr": 0.1, "optimizer": "adam", "hidden": [8, 8]})
        reader.count(tree)

    def complete_filter(text: str) -> None:
        complete(text, Vocabulary({"lr": ["0.1"], "seed": ["0"], "tag": ["good"]}, ["val/loss"]))

    def read_lines(text: str) -> None:
        lines = text.split("|")
        check_words(lines)
        read_layers(lines, (1, 8, 8))

    def read_csv(text: str) -> None:
        file = folder / "points.csv"
        file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        for _ in itertools.islice(read_points(file), 1000):
            pass

    def read_toml(text: str) -> None:
        file = folder / "grid.toml"
        file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        grid = read_grid(file)
        if (params := builtin.BUILTIN.get(grid.task)) is not None:
            configs = expand(grid, {**TRAINING, **params}, limit_without_yes=500).configs
            new_runs(grid, configs, {**TRAINING, **params})

    kinds: dict[str, tuple[Check, list[str]]] = {
        "grid": (read_toml, grids),
        "filter": (read_filter, filters),
        "completion": (complete_filter, filters),
        "layers": (read_lines, ["|".join(layers[:n]) for n in range(1, len(layers))]),
        "csv": (
            read_csv,
            [f"{header}\n" + f"{','.join(cells[:7])}\n" * 3, header, "run;metric;step;value\na;b;1;2,5\n"],
        ),
    }

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        rng = random.Random(f"{seed} {number}")
        for kind, (check, samples) in kinds.items():
            for _ in range(INPUTS_PER_TRIAL):
                text = mutate_text(rng, samples)
                fault = fault_of(check, text)
                if fault is not None:
                    keep_input(f"parsers-{kind}", text.encode("utf-8", "surrogatepass"))
                yield Outcome(kind, fault)

    return run_trial


def fault_of(check: Callable[[str], None], text: str) -> str | None:
    """Return what was wrong with the reading of an input, in one line."""
    try:
        with time_limit():
            check(text)
    except (LabbenchError, LayerError, BadItem):
        return None
    except Hang:
        return f"too slow: {text[:200]!r}"
    except Exception as error:
        return f"{describe_error(error)}: {text[:200]!r}"
    return None
