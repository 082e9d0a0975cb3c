"""Parts of the experiments, cut down and really trained: their answers say what is known of such networks.

Only what holds by a wide margin is claimed here; experiments/README.md has the numbers of the whole grids.
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
"""By experiment: which of its runs, and what is set for all of them."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What results.py says of each experiment, from runs that were trained."""
    db = tmp_path_factory.mktemp("experiments") / "runs.db"
    for name, (only, settings) in PARTS.items():
        words = ["--db", str(db), "run", str(FOLDER / f"{name}.toml"), "--only", only, "--workers", "0"]
        words += [word for setting in settings for word in ("--set", setting)]
        trained = CliRunner().invoke(main, words)
        assert trained.exit_code == 0, trained.output
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(FOLDER)
        import results

        text = results.render_results(db)
        for module in [name for name in sys.modules if name.partition(".")[0] in ("results", "answers")]:
            del sys.modules[module]
    sections = {part.partition("]")[0]: part for part in text.split("### [")[1:]}
    return {name: sections[name] for name in PARTS}


def line_with(words: str, text: str) -> str:
    return next(line for line in text.splitlines() if words in line)


def cells(row: str, text: str) -> list[float]:
    """The values of the table's row that begins so, without what is no number, and without the intervals."""
    parts = line_with(f"| {row} |", text).split("|")[2:-1]
    return [float(part.split()[0].replace("−", "-")) for part in parts if re.match(r" [−\d]", part)]


def test_a_perceptron_learns_and_but_not_xor_which_two_layers_learn(told: dict[str, str]) -> None:
    text = told["perceptron"]
    assert min(cells("and", text)) > 0.95
    _, alone, _, two_layers = cells("xor", text)
    assert alone <= 0.75 < 0.9 < two_layers
    assert "in validation a network with two layers is ahead of the perceptron by" in line_with("- `xor`", text)


def test_mini_batches_get_further_than_all_samples_a_step(told: dict[str, str]) -> None:
    assert cells("64", told["gradient_descent"])[0] > cells("1257", told["gradient_descent"])[0] + 0.05
    assert "no learning rate reaches 0.9" in line_with("with the full batch", told["gradient_descent"].lower())


def test_batch_normalisation_allows_a_larger_learning_rate(told: dict[str, str]) -> None:
    found = re.search(r"within 5 % of the best accuracy is (\d+) times larger", told["batchnorm"])
    assert found is not None, told["batchnorm"]
    assert int(found[1]) >= 3


def test_deep_sigmoids_do_not_train_for_want_of_gradient_and_relus_do(told: dict[str, str]) -> None:
    text = told["activations"]
    shallow, deep = cells("sigmoid", text)
    assert shallow > 0.9 > 0.5 > deep
    assert min(cells("ReLU", text)) > 0.85
    shares = re.search(r"sigmoid (\S+) and ReLU (\S+?)\.?$", line_with("ratio of the first", text))
    assert shares is not None, text
    assert float(shares[1]) < 1e-3 < 0.01 < float(shares[2])


def test_labels_that_mean_nothing_are_learnt_by_heart_and_take_longer(told: dict[str, str]) -> None:
    text = told["generalization"]
    true, shuffled = (cells(kind, text) for kind in ("true labels", "shuffled labels"))  # from the width on
    assert true[2] > 0.9 < shuffled[2]  # right in training
    assert true[3] > 0.7 > 0.35 > shuffled[3]  # in validation
    longer = re.search(r"memorizing takes (\S+) \[\S+, \S+\] times as long", text)
    assert longer is not None, text
    assert float(longer[1]) > 1
