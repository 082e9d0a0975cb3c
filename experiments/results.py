"""What the experiments found, from a database of their runs: python experiments/results.py DB [--train] [--write]

Prints the results as Markdown, or with --write puts them into experiments/README.md. Every number comes from the
database; the sentences follow what the numbers say. An experiment without runs there is named as such; --train trains
first what the database lacks. The curves of small networks depend in their last digits on the machine's BLAS.
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
from answers.words import Answer, sentence
from labbench.errors import LabbenchError
from labbench.grid import read_grid
from labbench.text import duration

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
"""By experiment, in the order of the README."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path, help="with the runs of these experiments")
    parser.add_argument(
        "--train", action="store_true", help="train the runs of all experiments first that are not there yet"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"put the results into {README.name}, in place of the last"
    )
    options = parser.parse_args()
    try:
        if options.train:
            train(options.database)
        text = results(options.database)
        if options.write:
            README.write_text(with_results(README.read_text(encoding="utf-8"), text), encoding="utf-8")
        else:
            print(text)
    except LabbenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def train(database: Path) -> None:
    """Every run of every experiment. Raises LabbenchError where some failed."""
    for name in ANSWERS:
        words = ["--db", str(database), "run", str(FOLDER / f"{name}.toml")]
        if subprocess.run([sys.executable, "-m", "labbench", *words], check=False).returncode:
            raise LabbenchError(f"{name}: not all of its runs were trained")


def results(database: Path) -> str:
    """The results part of the README."""
    with labbench.open(database) as reader:
        parts = [section(name, Experiment(reader, name)) for name in ANSWERS]
    return "\n\n".join([BEGIN, INTRODUCTION, *parts, END])


INTRODUCTION = """## Results

Made by `python experiments/results.py DB --train --write`, which trains into a database what is not there yet; every
number comes from these runs. Accuracy is that in validation, the best of a run, unless something else is said. Brackets
and ± are 95 % intervals over seeds, as `labbench why` reckons them. The best of several learning rates was chosen by
the same runs that are then told: its interval, and that of the difference of two such, is as much wider as the choice
asks for. Averages over several of them (in `noisy_sparse`, and how a lead grows in `rare_words`) are not widened. What
it takes to get to an accuracy is seen at the ends of epochs, and compared as a factor. Seconds are from the first run's
start to the last one's end, on two CPU cores that had other work too."""


def section(name: str, experiment: Experiment) -> str:
    """One experiment: its question, the answer in sentences, the numbers."""
    path = FOLDER / f"{name}.toml"
    title = f"### [{name}]({path.name})\n\n*{question(path)}*"
    ended = [run for run in experiment.runs if run.status in ("finished", "diverged")]
    if not ended or len(ended) < len(experiment.runs):
        return f"{title}\n\n{len(ended)} of {len(experiment.runs)} runs in this database have ended: no answer yet."
    answer = ANSWERS[name](experiment)
    picture = ["```\n" + "\n".join(line.rstrip() for line in answer.picture.splitlines()) + "\n```"] * bool(
        answer.picture
    )
    sentences = "\n".join(f"- {sentence(one)}" for one in answer.sentences)
    basis = f"{len(experiment.runs)} runs, {experiment.seeds} seeds for each set-up, {duration(experiment.seconds)}."
    return "\n\n".join([title, sentences, markdown(answer.table), *picture, basis])


def question(path: Path) -> str:
    """What an experiment asks: the first paragraph of its comment."""
    comment = takewhile(lambda line: line.startswith("# "), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("# ") for line in comment)


def markdown(table: list[list[str]]) -> str:
    """Rows as a table, the first of which names the columns."""
    header, *rows = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([header, "|" + " --- |" * len(table[0]), *rows])


def with_results(readme: str, text: str) -> str:
    """The README with these results in place of the last, or at its end."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before.rstrip()}\n\n{text}\n{after.lstrip()}" if after.strip() else f"{before.rstrip()}\n\n{text}\n"


assert {path.stem for path in FOLDER.glob("*.toml") if read_grid(path).task} == ANSWERS.keys(), "one answer a grid"

if __name__ == "__main__":
    sys.exit(main())
