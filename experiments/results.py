"""Report the results of the experiments from a database: python experiments/results.py DB [--train] [--write]

Prints Markdown, or writes it to experiments/README.md with --write. Every number and every sentence is derived from the
database. Experiments without runs are marked as such; --train first trains the missing runs. The last digits of small
networks' curves depend on the machine's BLAS.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import labbench
from answers import generalizing, training
from answers.study import Experiment
from answers.words import Answer, finish_sentence
from labbench.errors import LabbenchError
from labbench.grid import read_grid
from labbench.text import format_duration

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
BEGIN, END = "<!-- results: made by results.py -->", "<!-- end of results -->"

ANSWERS: dict[str, Callable[[Experiment], Answer]] = {
    "quickstart": training.quickstart,
    "gradient_descent": training.gradient_descent,
    "optimizers": training.optimizers,
    "noisy_sparse": training.noisy_sparse,
    "rare_words": training.rare_words,
    "regularization": generalizing.regularization,
    "batchnorm": training.batchnorm,
    "activations": training.activations,
    "perceptron": training.perceptron,
    "depth": generalizing.depth,
    "layers": generalizing.layers,
    "representation": generalizing.representation,
    "generalization": generalizing.generalization,
    "transfer": generalizing.transfer,
    "scaling": generalizing.scaling,
}
"""Result function of each experiment, in the order of the README."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path, help="database with the runs of the experiments")
    parser.add_argument("--train", action="store_true", help="first train the runs that are missing")
    parser.add_argument("--write", action="store_true", help=f"replace the results in {README.name}")
    options = parser.parse_args()
    try:
        if options.train:
            train(options.database)
        text = render_results(options.database)
        if options.write:
            README.write_text(insert_results(README.read_text(encoding="utf-8"), text), encoding="utf-8")
        else:
            print(text)
    except LabbenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def train(database: Path) -> None:
    """Train every run of every experiment.

    Raises:
        LabbenchError: Some runs failed.
    """
    for name in ANSWERS:
        words = ["--db", str(database), "run", str(FOLDER / f"{name}.toml")]
        if subprocess.run([sys.executable, "-m", "labbench", *words], check=False).returncode:
            raise LabbenchError(f"{name}: some runs failed; `labbench --db {database} ls status=failed` lists them")


def render_results(database: Path) -> str:
    """Return the results section of the README."""
    with labbench.open(database) as reader:
        parts = [render_section(name, Experiment(reader, name)) for name in ANSWERS]
    return "\n\n".join([BEGIN, INTRODUCTION, *parts, END])


INTRODUCTION = """## Results

Written by `python experiments/results.py DB --train --write`, which trains the missing runs into a database and derives
every number from it. Accuracy is validation accuracy, the best of a run, unless stated otherwise. Brackets and ± are
95 % confidence intervals over seeds, as in `labbench why`; a difference whose interval contains 0 is not significant.
The best of several learning rates is selected with the same runs that it is reported from: its interval, and the
interval of the difference of two such, are widened accordingly. Averages over several of them (in `noisy_sparse`, and
the change of an advantage in `rare_words`) are not widened. The cost to reach an accuracy is evaluated at the ends of
epochs and compared as a factor. Times are from the first run's start to the last run's end, on two CPU cores shared
with other work."""


def render_section(name: str, experiment: Experiment) -> str:
    """Return the section of one experiment: question, sentences, table."""
    path = FOLDER / f"{name}.toml"
    title = f"### [{name}]({path.name})\n\n*{read_question(path)}*"
    ended = [run for run in experiment.runs if run.status in ("finished", "diverged")]
    if not ended or len(ended) < len(experiment.runs):
        return f"{title}\n\n{len(ended)} of {len(experiment.runs)} runs in this database have ended: no answer yet."
    answer = ANSWERS[name](experiment)
    picture = ["```\n" + "\n".join(line.rstrip() for line in answer.picture.splitlines()) + "\n```"] * bool(
        answer.picture
    )
    sentences = "\n".join(f"- {finish_sentence(sentence)}" for sentence in answer.sentences)
    seconds = format_duration(experiment.seconds)
    basis = f"{len(experiment.runs)} runs, {experiment.seeds} seeds per configuration, {seconds}."
    return "\n\n".join([title, sentences, markdown_table(answer.table), *picture, basis])


def read_question(path: Path) -> str:
    """Return the question of an experiment, the first paragraph of its comment."""
    comment = takewhile(lambda line: line.startswith("# "), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("# ") for line in comment)


def markdown_table(table: list[list[str]]) -> str:
    """Return rows as a Markdown table; the first row is the header."""
    header, *rows = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([header, "|" + " --- |" * len(table[0]), *rows])


def insert_results(readme: str, text: str) -> str:
    """Return the README with its results replaced, or appended if it has none."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before.rstrip()}\n\n{text}\n{after.lstrip()}" if after.strip() else f"{before.rstrip()}\n\n{text}\n"


def _is_question(path: Path) -> bool:
    """Return True for a grid with a task; a search shows a command instead of answering a question."""
    grid = read_grid(path)
    return bool(grid.task) and grid.search is None


assert {path.stem for path in FOLDER.glob("*.toml") if _is_question(path)} == ANSWERS.keys(), (
    "ANSWERS must have one entry per grid file with a task"
)

if __name__ == "__main__":
    sys.exit(main())
