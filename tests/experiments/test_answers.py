"""Reduced experiments, trained in the test: their answers agree with known results.

Only results with a wide margin are tested; experiments/README.md has the numbers of the whole grids.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")

from click.testing import CliRunner

from labbench.cli import main

FOLDER = Path(__file__).parents[2] / "experiments"
PARTS: Mapping[str, tuple[str, Sequence[str]]] = {
    "perceptron": ("data=and,xor seed=0,1", ["hidden=[16]", "train_size=60"]),
    "gradient_descent": ("batch_size=1257,64 lr=1,0.3 seed=0,1", ["epochs=10"]),
    "batchnorm": ("lr=0.3,1,3 seed=0,1", ["epochs=8"]),
    "activations": (
        'activation=sigmoid,relu hidden="[64]","[64,64,64,64,64,64,64,64]" seed=0',
        ["lr=0.003", "epochs=12"],
    ),
    "generalization": ("label_noise=0 seed=0,1", ["hidden=[64]", "train_size=100", "lr=0.01", "epochs=60"]),
}
"""Filter of the runs and settings for all of them, by experiment."""


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the sections of results.py by experiment, from trained runs."""
    db = tmp_path_factory.mktemp("experiments") / "runs.db"
    for name, (only, settings) in PARTS.items():
        words = ["--db", str(db), "run", str(FOLDER / f"{name}.toml"), "--only", only, "--workers", "0"]
        words += [word for setting in settings for word in ("--set", setting)]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(FOLDER)
        import results

        text = results.render_results(db)
        for module in [name for name in sys.modules if name.partition(".")[0] in ("results", "answers")]:
            del sys.modules[module]
    by_name = {part.partition("]")[0]: part for part in text.split("### [")[1:]}
    return {name: by_name[name] for name in PARTS}


def line_with(words: str, text: str) -> str:
    return next(line for line in text.splitlines() if words in line)


def cells(row: str, text: str) -> list[float]:
    """Return the numbers of the table row with this first cell, without intervals and text."""
    parts = line_with(f"| {row} |", text).split("|")[2:-1]
    return [float(part.split()[0].replace("−", "-")) for part in parts if re.match(r" [−\d]", part)]


def test_a_perceptron_learns_and_but_not_xor_which_two_layers_learn(sections: dict[str, str]) -> None:
    text = sections["perceptron"]
    assert min(cells("and", text)) > 0.95
    _, single_layer, _, two_layers = cells("xor", text)
    assert single_layer <= 0.75 < 0.9 < two_layers
    assert "in validation a network with two layers is ahead of the perceptron by" in line_with("- `xor`", text)


def test_mini_batches_reach_a_higher_accuracy_than_the_full_batch(sections: dict[str, str]) -> None:
    text = sections["gradient_descent"]
    assert cells("64", text)[0] > cells("1257", text)[0] + 0.05
    assert "no learning rate reaches 0.9" in line_with("with the full batch", text.lower())


def test_batch_normalization_allows_a_larger_learning_rate(sections: dict[str, str]) -> None:
    match = re.search(r"within 5 % of the best accuracy is (\d+) times larger", sections["batchnorm"])
    assert match is not None, sections["batchnorm"]
    assert int(match[1]) >= 3


def test_deep_sigmoid_networks_have_vanishing_gradients_and_do_not_train(sections: dict[str, str]) -> None:
    text = sections["activations"]
    shallow, deep = cells("sigmoid", text)
    assert shallow > 0.9 > 0.5 > deep
    assert min(cells("ReLU", text)) > 0.85
    shares = re.search(r"sigmoid (\S+) and ReLU (\S+?)\.?$", line_with("ratio of the first", text))
    assert shares is not None, text
    assert float(shares[1]) < 1e-3 < 0.01 < float(shares[2])


def test_shuffled_labels_are_memorized_but_take_longer(sections: dict[str, str]) -> None:
    text = sections["generalization"]
    true, shuffled = (cells(kind, text) for kind in ("true labels", "shuffled labels"))  # cells start with the width
    assert true[2] > 0.9 < shuffled[2]  # training accuracy
    assert true[3] > 0.7 > 0.35 > shuffled[3]  # validation accuracy
    match = re.search(r"memorizing takes (\S+) \[\S+, \S+\] times as long", text)
    assert match is not None, text
    assert float(match[1]) > 1
