"""Corruption of a task's data by its config: equal for every run, nested, and none by default."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.training import train_run
from labbench.errors import InputError
from labbench.params.builtin import BUILTIN, CORRUPTION
from labbench.params.param import with_defaults
from labbench.train.data.corruption import corrupt, select_classes
from labbench.train.data.dataset import Data, load_digits
from labbench.train.tasks.task import load_task, make_data, make_model


def corrupted(**config: Any) -> Data:
    return corrupt(load_digits(), with_defaults(config, CORRUPTION))


def same(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_default_config_leaves_the_data_unchanged() -> None:
    task, data = load_task("digits"), load_digits()
    plain = make_data(task, with_defaults({}, BUILTIN["digits"]))
    assert all(same(getattr(plain, name), getattr(data, name)) for name in ("train", "val", "test"))


@settings(max_examples=20, deadline=None)
@given(smaller=st.integers(10, 1257), larger=st.integers(10, 1257))
def test_a_smaller_training_set_is_a_stratified_subset_of_a_larger_one(smaller: int, larger: int) -> None:
    smaller, larger = sorted((smaller, larger))
    few, many = corrupted(train_size=smaller), corrupted(train_size=larger)
    assert (len(few.train[0]), len(many.train[0])) == (smaller, larger)
    assert same(few.val, load_digits().val)
    rows = {tuple(row) for row in many.train[0].flatten(1).tolist()}
    assert all(tuple(row) in rows for row in few.train[0].flatten(1).tolist())
    fair = load_digits().train[1].bincount() * smaller / 1257
    assert ((few.train[1].bincount(minlength=10) - fair).abs() < 2).all()


def test_label_noise_changes_its_share_of_training_labels_and_nothing_else() -> None:
    truth = load_digits().train[1]
    some, more, all_wrong = (corrupted(label_noise=share).train[1] != truth for share in (0.2, 0.5, 1.0))
    assert some.double().mean() == pytest.approx(0.2, abs=0.03)
    assert more.double().mean() == pytest.approx(0.5, abs=0.03)
    assert all_wrong.all()
    assert (more | ~some).all()
    noisy = corrupted(label_noise=0.5)
    assert noisy.test is not None
    assert same(
        [noisy.train[0], *noisy.val, *noisy.test],
        [load_digits().train[0], *load_digits().val, *(load_digits().test or ())],
    )


def test_wrong_labels_are_spread_over_all_other_classes() -> None:
    truth, wrong = load_digits().train[1], corrupted(label_noise=1.0).train[1]
    counts = torch.zeros(10, 10).index_put((truth, wrong), torch.ones(1257), accumulate=True)
    assert (counts.diagonal() == 0).all()
    assert ((counts > 0).sum(dim=1) == 9).all()


def test_random_labels_keep_class_counts_and_are_independent_of_the_images() -> None:
    truth, shuffled = load_digits().train[1], corrupted(random_labels=True).train[1]
    assert torch.equal(truth.bincount(), shuffled.bincount())
    assert (truth == shuffled).double().mean() == pytest.approx(0.1, abs=0.03)


def test_a_sample_keeps_its_label_noise_and_input_noise_in_a_subset() -> None:
    settings: dict[str, Any] = {"label_noise": 0.5, "input_noise": 0.3, "input_sparsity": 0.2}
    whole, part = corrupted(**settings), corrupted(**settings, train_size=100)
    label = dict(zip(map(tuple, whole.train[0].flatten(1).tolist()), whole.train[1].tolist(), strict=True))
    for inputs, target in zip(part.train[0].flatten(1).tolist(), part.train[1].tolist(), strict=True):
        assert label[tuple(inputs)] == target


def test_input_noise_has_the_configured_deviation_in_every_split() -> None:
    noisy, clean = corrupted(input_noise=0.5), load_digits()
    splits = (noisy.train, clean.train), (noisy.val, clean.val)
    noises = [(after[0] - before[0]).double() for after, before in splits]
    for noise in noises:
        assert noise.mean().item() == pytest.approx(0, abs=0.02)
        assert noise.std().item() == pytest.approx(0.5, rel=0.02)
        assert (noise.abs() > 1.0).double().mean().item() == pytest.approx(0.0455, abs=0.006)
    assert not torch.equal(noises[0][:270], noises[1])


def test_sparse_inputs_stay_zero_under_input_noise() -> None:
    sparse = corrupted(input_sparsity=0.75, input_noise=0.1)
    for split in (sparse.train, sparse.val):
        assert (split[0] == 0).double().mean().item() == pytest.approx(0.75, abs=0.01)


def test_selected_classes_are_renumbered_in_the_given_order() -> None:
    data = corrupted(classes=[7, 2])
    truth = load_digits()
    assert torch.equal(data.train[0][data.train[1] == 0], truth.train[0][truth.train[1] == 7])
    assert torch.equal(data.val[0][data.val[1] == 1], truth.val[0][truth.val[1] == 2])
    config = with_defaults({"classes": [7, 2]}, BUILTIN["digits"])
    assert make_model(load_task("digits"), {**config, "seed": 0})(data.val[0]).shape == (len(data.val[0]), 2)


def test_a_selected_class_may_be_absent_from_a_split() -> None:
    inputs, targets = select_classes((torch.arange(4.0), torch.tensor([0, 1, 0, 1])), [5, 1])
    assert (inputs.tolist(), targets.tolist()) == ([1.0, 3.0], [1, 1])


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"train_size": 5000}, "train_size = 5000: there are only 1257 training samples"),
        ({"classes": [1, 12]}, "there is no class 12; use 0 to 9"),
        ({"classes": [1]}, r"classes = \[1\]: name at least two classes, each once"),
        ({"classes": []}, r"classes = \[\]: name at least two classes"),
        ({"classes": [1, 2, 1]}, "each once"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        corrupted(**config)


def test_random_labels_are_memorized_without_generalizing() -> None:
    history = train_run(
        {"random_labels": True, "train_size": 100, "epochs": 60, "batch_size": 20, "optimizer": "adam", "lr": 0.01}
    )
    assert history.last("train/accuracy") > 0.95
    assert history.last("val/accuracy") < 0.3


def test_corrupted_data_never_changes_between_releases() -> None:
    """Recorded results depend on these draws: subset, label noise, label order, input noise and sparsity."""
    data = corrupted(train_size=50, label_noise=0.3, random_labels=True, input_noise=0.2, input_sparsity=0.5)
    rounded = (data.train[0].double() * 1e4).round().to(torch.int64)  # a libm may differ in the last bits
    texts = [part.numpy().astype("<i8").tobytes() for part in (rounded, data.train[1])]
    assert [hashlib.sha256(text).hexdigest()[:12] for text in texts] == ["c318dd64019d", "815a6f4ae82e"]
