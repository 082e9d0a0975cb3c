"""The digits and their split, and the checks on a task's data."""

from __future__ import annotations

import hashlib

import pytest

torch = pytest.importorskip("torch")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.errors import InputError
from labbench.train.data.dataset import (
    DIGITS_FILE,
    DIGITS_HELD_OUT,
    DIGITS_SPLIT_SEED,
    Data,
    load_digits,
    split_stratified,
)


def test_digits_are_images_in_0_to_1_with_ten_classes() -> None:
    data = load_digits()
    assert data.test is not None
    for (inputs, targets), count in zip((data.train, data.val, data.test), (1257, 270, 270), strict=True):
        assert inputs.shape == (count, 1, 8, 8)
        assert inputs.dtype == torch.float32
        assert (inputs.min(), inputs.max()) == (0, 1)
        assert targets.dtype == torch.int64
        assert set(targets.tolist()) == set(range(10))


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_the_digits_and_their_split_never_change_between_releases() -> None:
    """Recorded results depend on these bytes and indices, which are part of digits@1."""
    with np.load(DIGITS_FILE) as file:
        images, classes = file["images"], file["targets"]
    assert sha256(images) == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    assert sha256(classes) == "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
    split = split_stratified(torch.from_numpy(classes).long(), DIGITS_HELD_OUT, seed=DIGITS_SPLIT_SEED)
    assert [sha256(part.numpy().astype("<i8")) for part in split] == [
        "1865c1818e1e233208114b6c6bdf7e9a1f8b80348d19bbf74de21d95baa98921",
        "010a5dead9cab4fd6c1de496cc3fd9970a65955625407dc863ea6f666a5a616f",
        "d7143a924aedbad9030e5ed3ee94a99cb6e8cd90803cf8b255e8b1cad1b5b6a4",
    ]
    assert torch.equal(load_digits().val[0][:, 0] * 16, torch.from_numpy(images)[split[1]])


@settings(max_examples=50, deadline=None)
@given(
    classes=st.lists(st.integers(0, 4), min_size=4, max_size=200), seed=st.integers(0, 1000), share=st.floats(0, 0.5)
)
def test_a_stratified_split_is_a_partition_with_every_class_in_proportion(
    classes: list[int], seed: int, share: float
) -> None:
    targets, held_out = torch.tensor(classes), int(share * len(classes))
    train, val, test = split_stratified(targets, held_out, seed=seed)
    assert sorted(train.tolist() + val.tolist() + test.tolist()) == list(range(len(classes)))
    assert len(val) == len(test) == held_out
    for part in (train, val, test):
        fair = targets.bincount(minlength=5) * len(part) / len(targets)
        assert ((targets[part].bincount(minlength=5) - fair).abs() < 2).all()


def test_integers_keep_their_dtype_when_data_moves() -> None:
    words, classes = torch.randint(0, 9, (5, 3)), torch.arange(5)
    data = Data(train=(words, classes), val=(torch.rand(5, 2, dtype=torch.float64), torch.rand(5)))
    moved = data.to(torch.device("cpu"), torch.float32)
    assert [part.dtype for part in moved.train] == [torch.int64, torch.int64]
    assert [part.dtype for part in moved.val] == [torch.float32, torch.float32]
    assert moved.test is None


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        ((torch.zeros(3, 2), torch.zeros(4)), r"the same length, at least 1; their shapes are \(3, 2\) and \(4,\)"),
        ((torch.zeros(0, 2), torch.zeros(0)), r"at least 1"),
        ((torch.zeros(3, 2), [0, 1, 0]), "pair of tensors"),
        (torch.zeros(2, 2), "pair of tensors"),
    ],
)
def test_inputs_and_targets_that_do_not_match_are_refused(split: object, complaint: str) -> None:
    good = (torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(InputError, match=f"`val`.*{complaint}"):
        Data(train=good, val=split)  # type: ignore[arg-type]


def test_numpy_arrays_are_refused_with_the_conversion() -> None:
    arrays = (np.zeros((4, 2)), np.zeros(4, dtype=np.int64))
    with pytest.raises(InputError, match=r"torch\.from_numpy"):
        Data(train=arrays, val=arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError) as refusal:
        Data(train=([1.0], [2]), val=None)  # type: ignore[arg-type]
    assert "numpy" not in str(refusal.value)
