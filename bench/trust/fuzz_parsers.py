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
from labbench.importing.csv_file import find_runs
from labbench.params import TRAINING, BadItem, builtin
from labbench.params.layers import LayerError, check_words, read_layers
from labbench.store.reader import Reader

INPUTS_PER_TRIAL = 50
"""Inputs of each kind in one trial."""

ROOT = Path(__file__).parents[2]

LAYERS = ("conv 16x3", "relu", "maxpool 2", "flatten", "linear 10", "dropout 0.5", "batchnorm", "avgpool 2", "conv 8")
CELLS = ("1", "0.5", "-1e-3", "nan", "inf", "1.0", "train/loss", "run 1", "2026-11-30", "1,5", "=SUM(A1)", '"a""b"')
HEADER = "run,name,experiment,metric,step,time,value"


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial: some inputs of each kind."""
    parsers = Parsers(folder)
    filters = filters_of_docs()
    samples = {
        "grid": [path.read_text() for path in sorted(ROOT.glob("experiments/*.toml"))],
        "filter": filters,
        "completion": filters,
        "layers": ["|".join(LAYERS[:n]) for n in range(1, len(LAYERS))],
        "csv": [f"{HEADER}\n" + f"{','.join(CELLS[:7])}\n" * 3, HEADER, "run;metric;step;value\na;b;1;2,5\n", *CELLS],
    }

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        rng = random.Random(f"{seed} {number}")
        for kind, texts in samples.items():
            for _ in range(INPUTS_PER_TRIAL):
                text = mutate_text(rng, texts)
                fault = fault_of(getattr(parsers, f"parse_{kind}"), text)
                if fault is not None:
                    keep_input(f"parsers-{kind}", text.encode("utf-8", "surrogatepass"))
                yield Outcome(kind, fault)

    return run_trial


def filters_of_docs() -> list[str]:
    """Return the filters and comparisons that the documentation shows."""
    pages = [*ROOT.glob("docs/reference/*.md"), *ROOT.glob("labbench/cli/help.py")]
    words = [word for page in pages for word in re.findall(r"`([^`\n]{3,60})`", page.read_text())]
    return [word for word in words if re.search("[=<>~]", word)]


class Parsers:
    """Functions that parse a text, one for each kind of input."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = Reader(write_sample(folder / "sample.db", runs=4, points=5))

    def parse_grid(self, text: str) -> None:
        grid = read_grid(self._write("grid.toml", text))
        if (own := builtin.BUILTIN.get(grid.task)) is not None:
            params = {**TRAINING, **own}
            new_runs(grid, expand(grid, params, limit_without_yes=500).configs, params)

    def parse_filter(self, text: str) -> None:
        tree = parse(text)
        matches_config(tree, {"lr": 0.1, "optimizer": "adam", "hidden": [8, 8]})
        self._reader.count(tree)

    def parse_completion(self, text: str) -> None:
        complete(text, Vocabulary({"lr": ["0.1"], "seed": ["0"], "tag": ["good"]}, ["val/loss"]))

    def parse_layers(self, text: str) -> None:
        lines = text.split("|")
        check_words(lines)
        read_layers(lines, (1, 8, 8))

    def parse_csv(self, text: str) -> None:
        for run in itertools.islice(find_runs(self._write("points.csv", text)), 1000):
            run.read()

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        return path


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
