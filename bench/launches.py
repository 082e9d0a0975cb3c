"""Count the kernel launches of a training step on CUDA, and model the time of a step, without a GPU.

The steps run on the device `meta`, whose tensors have shapes but no values, along the path that they take on CUDA: with
autograd and without the hand-written kernels of the CPU. Every operator has a weight, the number of kernels that torch
launches for it; an operator without a weight is an error. The model of a step's time is the largest of

    launches x 5 us                  the time that the host needs to launch the kernels
    bytes / 3.35 TB/s                the bytes that the kernels read and write, at the bandwidth of an H100
    FLOP / 67 TFLOP/s                the matrix products and convolutions, at its peak in float32

A captured step is one launch of a graph, whose kernels start about 1.5 us after one another. The weights and the model
are estimates: none of them has been compared with a GPU. `bench/gpu.sh` does that where there is one.

    python bench/launches.py [--operators]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from labbench.params.param import TRAINING, with_defaults
from labbench.records import Config
from labbench.train.data.dataset import Data
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.cuda.meta_kernels import gpu_optimizers
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Workload
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.models import ConvBlock, cnn
from labbench.train.tasks.task import FileTask, make_model

LAUNCH_SECONDS, GRAPH_KERNEL_SECONDS = 5e-6, 1.5e-6
BYTES_PER_SECOND, FLOP_PER_SECOND = 3.35e12, 67e12

META = torch.device("meta")
BATCH_SIZE = 64
WIDTHS = (1, 16, 64, 256, 1024)

Weight: TypeAlias = int | Callable[[Sequence[Any], Mapping[str, Any]], int]
"""Number of kernels of an operator, or a function of its arguments."""

MAX_CONCATENATED = 128
"""Tensors that one kernel concatenates."""
LIST_DEPTH_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Tensors that one kernel of a foreach operator handles, by the number of tensor lists."""
CHUNK_ELEMENTS, CHUNKS_PER_KERNEL = 65536, 320


def foreach_weight(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the kernels of a foreach operator: chunks of tensor lists, or one per tensor if strides differ."""
    lists = [values for values in args if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor)]
    lists = [values for values in lists if values[0].dim() > 0] or lists
    first = lists[0]
    if any(
        a.stride() != b.stride() or not b.is_contiguous()
        for values in lists
        for a, b in zip(first, values, strict=False)
    ):
        return len(first)
    chunks = sum(ceil(tensor.numel() / CHUNK_ELEMENTS) for tensor in first)
    return max(ceil(len(first) / LIST_DEPTH_TENSORS[min(5, len(lists))]), ceil(chunks / CHUNKS_PER_KERNEL))


def concatenation_weight(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return ceil(len(args[0]) / MAX_CONCATENATED)


def convolution_weight(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return 1 + (args[2] is not None)


def convolution_backward_weight(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return a kernel for each gradient, and one that sets the gradient of the filters to zero."""
    return sum(args[-1]) + 1


FREE = """
    _unsafe_view _reshape_alias lift_fresh empty empty_like empty_strided new_empty new_empty_strided detach_
    _record_function_enter_new _record_function_exit
"""
"""Operators that launch no kernel."""

SINGLE = """
    _to_copy clone copy_ fill_ zero_ zeros zeros_like ones_like new_zeros new_ones full full_like new_full arange
    add add_ sub sub_ mul mul_ div div_ addcmul addcmul_ addcdiv addcdiv_ lerp lerp_ pow sqrt rsqrt reciprocal exp neg
    clamp clamp_ clamp_min clamp_max where masked_fill eq ne lt le gt ge logical_and logical_not
    bitwise_and bitwise_and_ bitwise_or bitwise_not bitwise_xor_ __rshift__ remainder
    relu relu_ threshold_backward gelu gelu_backward tanh tanh_ tanh_backward sigmoid sigmoid_ sigmoid_backward
    sum mean amax argmax any norm linalg_vector_norm index_select gather embedding bmm mm
    _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data nll_loss_forward nll_loss2d_forward
    native_layer_norm max_pool2d_with_indices avg_pool2d avg_pool2d_backward _adaptive_avg_pool2d
    _adaptive_avg_pool2d_backward adaptive_max_pool2d select_backward slice_backward flip
"""
"""Operators of one kernel."""

LOOKUPS = ("index_select", "gather", "embedding")
"""Operators that read only as much of their operand as they return."""

FOREACH = """
    _foreach_add_ _foreach_mul _foreach_mul_ _foreach_addcmul_ _foreach_addcdiv_ _foreach_sqrt _foreach_copy_
    _foreach_div_ _foreach_lerp_
"""
"""Operators on lists of tensors."""

WEIGHTS: dict[str, Weight] = {
    **dict.fromkeys(FREE.split(), 0),
    **dict.fromkeys(SINGLE.split(), 1),
    "addmm": 1,  # the library adds the bias
    "baddbmm": 2,  # the bias is copied to the result first
    "scatter_add_": 1,
    "cat": concatenation_weight,
    "stack": concatenation_weight,
    "convolution": convolution_weight,
    "convolution_backward": convolution_backward_weight,
    "native_batch_norm": 2,
    "native_batch_norm_backward": 2,
    "native_layer_norm_backward": 3,
    "nll_loss_backward": 2,  # gradients are set to zero first
    "nll_loss2d_backward": 2,
    "max_pool2d_with_indices_backward": 2,
    "adaptive_max_pool2d_backward": 2,
    "embedding_dense_backward": 6,  # indices are sorted
    "_fused_adam_": foreach_weight,
    "_fused_adamw_": foreach_weight,
    "_fused_sgd_": foreach_weight,
    "_foreach_norm": lambda args, kwargs: 2 * foreach_weight(args, kwargs),
    **dict.fromkeys(FOREACH.split(), foreach_weight),
}
"""Number of kernels by operator, without its overload."""


class UnknownOperator(RuntimeError):
    """Operator without a weight."""


class LaunchCounter(TorchDispatchMode):
    """Context manager that counts kernels, bytes and floating-point operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: Counter[str] = Counter()
        """Number of kernels by operator."""
        self.bytes = self.flop = 0

    def __enter__(self) -> LaunchCounter:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    @property
    def launches(self) -> int:
        return sum(self.kernels.values())

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = list(iter_device_tensors((args, kwargs, result)))
        name = func.name().split("::")[1].split(".")[0]
        if func.is_view or not tensors:
            return result
        if name not in WEIGHTS:
            raise UnknownOperator(f"bench/launches.py has no weight for {func.name()}: count its kernels and add it")
        weight = WEIGHTS[name]
        kernels = weight if isinstance(weight, int) else weight(args, kwargs)
        if kernels:
            self.kernels[name] += kernels
            touched = [result, result] if name in LOOKUPS else tensors
            self.bytes += sum(tensor.numel() * tensor.dtype.itemsize for tensor in touched)
        self.flop += count_flop(func, args, kwargs, result)
        return result


def count_flop(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Return the floating-point operations of an operator; torch's formula ignores groups in a backward pass."""
    if func.name().startswith("aten::convolution_backward"):
        grad_output, weight, wanted = args[0], args[2], args[-1]
        return 2 * grad_output.numel() * (weight.numel() // len(weight)) * sum(wanted[:2])
    count = flop_registry.get(func._overloadpacket)
    return 0 if count is None else int(count(*args, **kwargs, out_val=result))


def iter_device_tensors(values: Any) -> Iterator[Tensor]:
    """Yield the distinct tensors that are not on the host."""
    tensors = {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.device.type != "cpu"}
    return iter(tensors.values())


@dataclass(frozen=True)
class Case:
    """A network, its data and the settings of its runs."""

    model: Callable[[Config], nn.Module]
    image: tuple[int, int, int]
    """Channels, height and width."""
    settings: Config
    batch_size: int = BATCH_SIZE


def mlp(config: Config, *, dropout: float = 0.0, batchnorm: bool = False) -> nn.Module:
    """Return the MLP 64-128-64-10 for images of 8x8 pixels."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((64, 128), (128, 64)):
        layers += [nn.Linear(inputs, outputs)]
        layers += [nn.BatchNorm1d(outputs)] if batchnorm else []
        layers += [nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(64, 10))


CASES = {
    "mlp": Case(mlp, (1, 8, 8), {"optimizer": "adam"}),
    "mlp, dropout, batch norm": Case(
        lambda config: mlp(config, dropout=0.5, batchnorm=True), (1, 8, 8), {"optimizer": "adam"}
    ),
    "cnn28": Case(
        lambda config: cnn((1, 28, 28), [16, 32], 10, ConvBlock(batchnorm=True)), (1, 28, 28), {"optimizer": "adam"}
    ),
}


def make_workload(case: Case) -> Workload:
    """Return the case's workload, with its data on `meta`."""
    sizes = 4 * BATCH_SIZE, BATCH_SIZE
    splits = [(torch.zeros(n, *case.image, device=META), torch.zeros(n, dtype=torch.int64, device=META)) for n in sizes]
    data = Data(*splits).to(META, torch.float32)
    return Workload(FileTask({}, lambda config: data, case.model, cross_entropy, accuracy), data, BATCH_SIZE)


def make_config(case: Case, seed: int) -> Config:
    return with_defaults({"batch_size": case.batch_size, "seed": seed, **case.settings}, TRAINING)


def make_stack(case: Case, runs: int) -> StackedStepper:
    """Return a stack of runs with the case's network, on `meta`."""
    workload, configs = make_workload(case), [make_config(case, seed) for seed in range(runs)]
    model = make_model(workload.task, configs[0])
    members = [StackMember.from_model(model, config) for config in configs]
    return StackedStepper("stacked", model, members, workload, StepCounter())


def count_plain_step(case: Case) -> LaunchCounter:
    """Count one step of one run in the plain loop."""
    workload, config = make_workload(case), make_config(case, 0)
    with gpu_optimizers():
        loop = SingleStepper(make_model(workload.task, config), config, workload, StepCounter())
        return count_second_step(loop, 1)


def count_stacked_step(case: Case, runs: int) -> LaunchCounter:
    """Count one step of a stack without a graph."""
    return count_second_step(make_stack(case, runs), runs)


def count_captured_step(case: Case, runs: int) -> tuple[LaunchCounter, LaunchCounter]:
    """Count the kernels inside the graph of a step, and those that the host launches for a replay besides the graph."""
    stepper = CudaGraphStepper(make_stack(case, runs), BATCH_SIZE)
    whole = count_second_step(stepper, runs)
    with LaunchCounter() as inside:
        stepper.update()
    outside = LaunchCounter()
    outside.kernels = whole.kernels - inside.kernels
    return inside, outside


def count_second_step(stepper: Any, runs: int) -> LaunchCounter:
    """Count a step after one that allocates what later steps reuse."""
    stepper.train(True)
    batch = torch.zeros(runs, BATCH_SIZE, dtype=torch.int64, device=META)
    stepper.step(batch)
    with LaunchCounter() as counter:
        stepper.step(batch)
    return counter


def model_seconds(launch_seconds: float, counter: LaunchCounter) -> tuple[float, str]:
    """Return the modelled time of a step, and what limits it."""
    limits = {
        "launches": launch_seconds,
        "memory": counter.bytes / BYTES_PER_SECOND,
        "arithmetic": counter.flop / FLOP_PER_SECOND,
    }
    limit = max(limits, key=limits.__getitem__)
    return limits[limit], limit


def report(name: str, case: Case, *, operators: bool) -> None:
    plain = count_plain_step(case)
    plain_seconds, _ = model_seconds(plain.launches * LAUNCH_SECONDS, plain)
    print(f"\n{name}: a plain step launches {plain.launches} kernels, {plain_seconds * 1e6:.0f} us")
    print("  runs  stacked launches       us  limit       captured: graph + copies  kernels       us  limit       gain")
    for runs in WIDTHS:
        stacked = count_stacked_step(case, runs)
        seconds, limit = model_seconds(stacked.launches * LAUNCH_SECONDS, stacked)
        inside, outside = count_captured_step(case, runs)
        launch_seconds = (1 + outside.launches) * LAUNCH_SECONDS + inside.launches * GRAPH_KERNEL_SECONDS
        captured_seconds, captured_limit = model_seconds(launch_seconds, inside)
        print(
            f"  {runs:4}  {stacked.launches:16} {seconds * 1e6:8.0f}  {limit:10}  {f'1 + {outside.launches}':>24}"
            f"  {inside.launches:7} {captured_seconds * 1e6:8.0f}  {captured_limit:10}"
            f"  {runs * plain_seconds / captured_seconds:5.0f}"
        )
    if operators:
        for operator, kernels in stacked.kernels.most_common():
            print(f"    {kernels:4} {operator}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the kernel launches of a training step on CUDA, without a GPU.")
    parser.add_argument("--operators", action="store_true", help="also print the kernels of each operator")
    options = parser.parse_args()
    print("model of an H100, not measured; gain: plain steps of all runs against one captured step")
    for name, case in CASES.items():
        report(name, case, operators=options.operators)


if __name__ == "__main__":
    main()
