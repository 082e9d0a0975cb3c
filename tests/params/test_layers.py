"""Networks from a list of layers: modules, shapes, and errors at the invalid layer."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from helpers.training import train_run
from labbench.errors import GridError, InputError
from labbench.grid import expand, read_grid
from labbench.params.builtin import BUILTIN, TOYS
from labbench.params.layers import KINDS, Shape
from labbench.params.param import TRAINING, with_defaults
from labbench.train.data.toys import make_toy
from labbench.train.tasks.models import ACTIVATIONS, LAYER_MAKERS, ConvBlock, Step, build_network, cnn
from labbench.train.tasks.task import load_task, make_model

CNN = ["conv 16", "relu", "maxpool 2", "flatten", "linear 10"]
DIGITS = {**TRAINING, **BUILTIN["digits"]}


def test_each_layer_of_the_list_is_one_module() -> None:
    model = build_network(CNN, (1, 8, 8), 10)
    assert [type(module) for module in model] == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Linear]
    assert model[0].weight.shape == (16, 1, 3, 3)
    assert model[4].weight.shape == (10, 16 * 4 * 4)
    assert model(torch.zeros(5, 1, 8, 8)).shape == (5, 10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 20), (2, 7, 5)])
def test_shapes_agree_with_torch(shape: Shape) -> None:
    layers = ["conv 4x5", "batchnorm", "gelu", "avgpool", "conv 3x2", "tanh", "maxpool 2", "dropout 0.5", "sigmoid"]
    layers += ["flatten", "linear 7", "batchnorm", "step", "linear 2"]
    assert {line.split()[0] for line in layers} == LAYER_MAKERS.keys() - {"relu"}
    assert LAYER_MAKERS.keys() == KINDS.keys()
    assert build_network(layers, shape, 2)(torch.rand(3, *shape)).shape == (3, 2)


def test_a_layer_before_batch_normalization_has_no_bias() -> None:
    model = build_network(["conv 4", "batchnorm", "flatten", "linear 5", "batchnorm", "linear 2"], (1, 4, 4), 2)
    assert [getattr(model[i], "bias", None) is None for i in (0, 3, 5)] == [True, True, False]


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        (["conv 4", "maxpol 2"], 'layers[1] = "maxpol 2": there is no layer `maxpol`; did you mean `maxpool`?'),
        (["xyz"], "there is no layer `xyz`; the layers are conv, maxpool, avgpool, linear, "),
        (["flatten", "linear 10", "softmax"], 'layers[2] = "softmax": leave it out: softmax is part of the loss'),
        (
            ["conv 4", "linear 10"],
            'layers[1] = "linear 10": its input is 4x8x8 (channels x height x width), but it needs a ',
        ),
        (["flatten", "conv 4"], "its input is 64 numbers, but it needs an image"),
        (["maxpool 4", "maxpool 4"], "a window of 4x4 does not fit in 1x2x2 (channels x height x width)"),
        (["conv"], 'write the channels, and the kernel size unless it is 3: "conv 16" or "conv 16x5"'),
        (["conv 16 5"], "write the channels, and"),
        (["conv 0"], "write the channels, and"),
        (["flatten", "linear 1x2"], 'write the number of outputs: "linear 32"'),
        (["maxpool two"], 'write the window size: "maxpool 2"'),
        (["dropout"], 'write the probability, at least 0 and below 1: "dropout 0.5"'),
        (["dropout 1.0"], "write the probability"),
        (["relu 3"], "it takes no arguments: remove '3'"),
        (["flatten", "linear 9"], 'the output of layers is 9 numbers, but there are 10 classes: end with "linear 10"'),
        (
            ["conv 4"],
            'the output of layers is 4x8x8 (channels x height x width), but there are 10 classes: end with "fl',
        ),
        (
            [],
            "the output of layers is 1x8x8 (channels x height x width), but there are 10 classes: "
            'end with "flatten", "linear 10"',
        ),
        ([""], "there is no layer ``"),
    ],
)
def test_an_invalid_list_is_explained_at_its_layer(layers: list[str], complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        build_network(layers, (1, 8, 8), 10)
    assert complaint in str(raised.value)


def test_layers_train_in_place_of_the_named_model() -> None:
    history = train_run({"layers": CNN, "epochs": 4, "optimizer": "adam", "lr": 0.01})
    assert history.last("val/accuracy") > 0.9


def test_layers_must_have_one_output_per_class_that_is_left() -> None:
    config = {**with_defaults({"layers": CNN, "classes": [3, 5]}, BUILTIN["digits"]), "seed": 0}
    with pytest.raises(InputError, match="there are 2 classes"):
        make_model(load_task("digits"), config)


def test_a_step_is_0_or_1_and_its_gradient_is_0() -> None:
    inputs = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0], requires_grad=True)
    outputs = Step()(inputs)
    assert outputs.tolist() == [0, 0, 0, 1, 1]
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    assert gradient.tolist() == [0, 0, 0, 0, 0]


def test_every_activation_that_can_be_chosen_exists() -> None:
    assert set(BUILTIN["digits"]["activation"].choices) == ACTIVATIONS.keys()


def test_with_step_activations_only_the_last_layer_learns() -> None:
    history = train_run({"activation": "step", "hidden": [256], "epochs": 10, "lr": 0.1})
    assert 0.7 < history.last("val/accuracy") < 1


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 5, 9), (1, 1, 4)])
@pytest.mark.parametrize("kernel", [2, 3])
def test_a_convolutional_network_takes_images_of_any_shape(shape: Shape, kernel: int) -> None:
    model = cnn(shape, [4, 5, 6], 3, ConvBlock(kernel, batchnorm=True), dropout=0.1)
    assert model(torch.rand(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("task", "layers", "complaint"),
    [
        (
            "digits",
            '["conv 16", "maxpol 2", "flatten", "linear 10"]',
            ':3:22: layers[1] = "maxpol 2": there is no layer `maxpol`; did you mean `maxpool`?\n'
            '    layers = ["conv 16", "maxpol 2", "flatten", "linear 10"]\n'
            "                         ^",
        ),
        ("toy", '["linear", "relu", "linear 2"]', ':3:11: layers[0] = "linear": write the number of outputs'),
        (
            "mnist",
            '["conv 4", "linear 10"]',
            ':3:21: layers[1] = "linear 10": its input is 4x28x28 (channels x height x',
        ),
        ("own", '["flatten", "linear 3", "softmax"]', ':3:34: layers[2] = "softmax": leave it out: softmax is part'),
    ],
)
def test_an_invalid_list_is_refused_at_its_position_in_the_grid_file(
    tmp_path: Path, task: str, layers: str, complaint: str
) -> None:
    path = tmp_path / "nets.toml"
    path.write_text(f'task = "{task}"\n[params]\nlayers = {layers}\n')
    with pytest.raises(GridError) as caught:
        expand(read_grid(path), {**TRAINING, **BUILTIN[task]})
    assert str(caught.value).startswith(f"{path}{complaint}")


@pytest.mark.parametrize(
    ("grid", "complaint"),
    [
        (
            'task = "digits"\n[params]\nlayers = ["flatten", "relu", "linear 9"]\n',
            ':3:30: the output of layers is 9 numbers, but there are 10 classes: end with "linear 10"\n'
            '    layers = ["flatten", "relu", "linear 9"]\n'
            "                                 ^",
        ),
        (
            'task = "digits"\n[grid]\nclasses = [[3, 5], [1, 2, 4]]\nlayers = [["flatten", "linear 3"]]\n',
            ":4:23: the output of layers is 3 numbers, but there are 2 classes",
        ),
        (
            'task = "toy"\n[params]\nlayers = ["linear 2"]\n[grid]\ndata = ["moons", "flowers"]\n',
            ":3:11: the output of layers is 2 numbers, but there are 3 classes",
        ),
        (
            'task = "toy"\n[grid]\ndata = ["separable"]\n[[set]]\nwhen = { data = "separable" }\n'
            'layers = ["relu", "conv 2"]\n',
            ':6:19: layers[1] = "conv 2": its input is 11 numbers, but it needs an image',
        ),
        (
            'task = "toy"\n[[include]]\ndata = "flowers"\nlayers = []\n',
            ":4:10: the output of layers is 4 numbers, but there are 3",
        ),
    ],
)
def test_layers_that_do_not_fit_the_classes_are_refused_at_their_position_in_the_grid_file(
    tmp_path: Path, grid: str, complaint: str
) -> None:
    path = tmp_path / "nets.toml"
    path.write_text(grid)
    with pytest.raises(GridError) as caught:
        expand(read_grid(path), {**TRAINING, **BUILTIN[read_grid(path).task]})
    assert str(caught.value).startswith(f"{path}{complaint}")


@pytest.mark.parametrize("name", TOYS)
def test_the_declared_inputs_and_classes_of_each_toy_are_those_of_its_data(name: str) -> None:
    data = make_toy(name, None)
    assert (data.train[0].shape[1], data.classes) == TOYS[name]


def test_every_list_of_an_axis_and_of_the_command_line_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "nets.toml"
    lists = '[["flatten", "linear 10"],\n ["maxpool 9", "flatten", "linear 10"]]'
    path.write_text(f'task = "digits"\n[grid]\nlayers = {lists}\n')
    with pytest.raises(GridError, match=r":4:3: layers\[0\] = \"maxpool 9\": a window of 9x9 does not fit in 1x8x8"):
        expand(read_grid(path), DIGITS)
    with pytest.raises(GridError, match=r'--set layers=\["dropout 2"\]: layers\[0\] = "dropout 2": write the prob'):
        expand(read_grid(path, overrides=['layers=["dropout 2"]']), DIGITS)
