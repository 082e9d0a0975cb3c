"""Parts of bench/gpu.sh: each prints rows of `name<TAB>value<TAB>note` and ends.

python bench/gpu_parts.py PART [--device cpu]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import launches
import torch
from gpu_activity import record_activity
from jax_mlp import measure_jax_mlp
from launches import BATCH_SIZE, CASES, Case, make_config
from torch import Tensor, nn

from labbench.train.data.dataset import Data
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.cuda.live_bytes import state_bytes, step_bytes
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Workload
from labbench.train.precision import Precision, prepare_device
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, make_model

TRAINING_SAMPLES = 1024
MEASURED_SECONDS = 3.0
DEVICE = torch.device("cuda:0")
ROOT = Path(__file__).parents[1]

BIG = Case(
    lambda config: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 8192), nn.ReLU(), nn.Linear(8192, 10)
    ),
    (1, 8, 8),
    {"optimizer": "adam"},
    batch_size=1024,
)
"""Network of which one run alone uses all of a GPU."""

Step = Callable[[], object]


def print_row(name: str, value: float | str, note: str = "") -> None:
    print(f"{name}\t{value if isinstance(value, str) else f'{value:,.4g}'}\t{note}", flush=True)


def make_data(case: Case) -> Data:
    """Return random images, on the host."""
    generator = torch.Generator().manual_seed(0)
    splits = [
        (torch.rand(n, *case.image, generator=generator), torch.randint(10, (n,), generator=generator))
        for n in (TRAINING_SAMPLES, case.batch_size)
    ]
    return Data(*splits)


def make_workload(case: Case, precision: Precision | None = None) -> Workload:
    """Return a case's workload with random images on the GPU."""
    data = make_data(case).to(torch.device(prepare_device(str(DEVICE))), torch.float32)
    task = FileTask({}, lambda config: data, case.model, cross_entropy, accuracy)
    return Workload(task, data, case.batch_size, precision or Precision(), gpu_layers=True)


def make_stack(case: Case, runs: int, workload: Workload | None = None) -> StackedStepper:
    """Return a stack of runs of a case on the GPU."""
    workload, configs = workload or make_workload(case), [make_config(case, seed) for seed in range(runs)]
    models = [make_model(workload.task, config) for config in configs]
    members = list(map(StackMember.from_model, models, configs))
    stack = StackedStepper("stacked", models[0], members, workload, StepCounter())
    stack.train(True)
    return stack


def capture(stack: StackedStepper, batch_size: int = BATCH_SIZE) -> CudaGraphStepper:
    """Return a stack whose step is a CUDA graph; on a CPU the same function without a graph."""
    stepper = CudaGraphStepper(stack, batch_size)
    if DEVICE.type == "cuda":
        stepper.capture()
    return stepper


def batch_of(stack: StackedStepper, batch_size: int = BATCH_SIZE) -> Tensor:
    """Return the indices of a batch of each run, shape (S, N)."""
    runs = len(stack.updates.parameters)
    return stack.data.first_batch(list(range(runs)), batch_size)


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def step_seconds(step: Step) -> float:
    """Return the seconds of a step, over about `MEASURED_SECONDS`."""
    for _ in range(10):
        step()
    synchronize()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < MEASURED_SECONDS:
        for _ in range(20):
            step()
        synchronize()
        steps += 20
    return (time.perf_counter() - began) / steps


def plain_step(case: Case, workload: Workload) -> Step:
    """Return a step of one run as people write it, with all data resident on the GPU."""
    assert isinstance(workload.data, Data)
    model = case.model(make_config(case, 0)).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters())
    (inputs, targets), loss_function = workload.data.train, nn.CrossEntropyLoss()
    indices = torch.randperm(len(inputs), device=DEVICE)[: case.batch_size]

    def step() -> None:
        optimizer.zero_grad()
        outputs = model(inputs[indices])
        loss_function(outputs, targets[indices]).backward()
        optimizer.step()

    return step


def measure_tests() -> None:
    """The tests that need a CUDA device, and the checks on `meta` with this version of torch."""
    if find_spec("pytest") is None:
        raise RuntimeError("pytest is not installed")
    words = [sys.executable, "-m", "pytest", "-q", "-W", "default", *(["-n", "8"] if find_spec("xdist") else [])]
    for name, selected in (
        ("CUDA tests", ["-m", "cuda", "tests/train"]),
        ("tests on meta", ["-m", "not cuda", "tests/train/engine/cuda", "tests/train/test_host_copies.py"]),
    ):
        result = subprocess.run([*words, *selected], cwd=ROOT, capture_output=True, text=True)
        lines = result.stdout.strip().splitlines() or [result.stderr.strip().partition("\n")[0]]
        for line in [line for line in lines if line.startswith(("FAILED", "ERROR"))][:20]:
            print_row("test", "failed", " ".join(line.split()))
        print_row(name, "passed" if result.returncode == 0 else "failed", " ".join(lines[-1].split()))


def measure_launches() -> None:
    """Kernels of a stacked step by the profiler, in all and by name, against the count on `meta`."""
    for name, case in CASES.items():
        stack = make_stack(case, 16)
        batch = batch_of(stack)
        for _ in range(3):
            stack.step(batch)
        synchronize()
        steps = 10
        with torch.profiler.profile(activities=torch.profiler.supported_activities()) as profile:
            for _ in range(steps):
                stack.step(batch)
            synchronize()
        on_gpu = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        kernels, counted = len(on_gpu) / steps, launches.count_stacked_step(case, 16)
        note = f"{counted.launches} counted on meta, ratio {kernels / counted.launches:.2f}, goal 0.8 to 1.2"
        print_row(f"launches {name}", kernels, note)
        for kernel, launched in Counter(event.name for event in on_gpu).most_common():
            print_row(f"kernel of {name}", launched / steps, " ".join(kernel.split())[:100])
        for operator, launched in counted.kernels.most_common():
            print_row(f"counted for {name}", launched, operator)


def measure_steps() -> None:
    """Run-steps per second: plain loop, stack, captured stack."""
    cases = [("mlp", 256, 200), ("mlp, dropout, batch norm", 256, 200), ("cnn28", 64, 20), ("big", 4, 0.97)]
    for name, runs, goal in cases if DEVICE.type == "cuda" else [("mlp, dropout, batch norm", 2, 0)]:
        case = {**CASES, "big": BIG}[name]
        workload = make_workload(case)
        plain = 1 / step_seconds(plain_step(case, workload))
        print_row(f"{name}: plain loop", plain, "run-steps/s, resident data")
        stack = make_stack(case, runs, workload)
        batch = batch_of(stack, case.batch_size)
        stacked = runs / step_seconds(lambda stack=stack, batch=batch: stack.step(batch))  # type: ignore[misc]
        print_row(f"{name}: {runs} runs stacked", stacked, f"run-steps/s, {stacked / plain:.3g} times the plain loop")
        began = time.perf_counter()
        graph = capture(stack, case.batch_size)
        seconds = time.perf_counter() - began
        captured = runs / step_seconds(lambda graph=graph, batch=batch: graph.step(batch))  # type: ignore[misc]
        gain = f"{captured / plain:.3g} times the plain loop, goal >= {goal}"
        note = f"run-steps/s, {gain}; the capture took {seconds:.2f} s"
        print_row(f"{name}: {runs} runs captured", captured, note)


def measure_precision() -> None:
    """Captured stacks of the CNN with bfloat16 and TF32."""
    case, runs = CASES["cnn28"], 64 if DEVICE.type == "cuda" else 2
    for name, precision, tf32 in (
        ("float32", Precision(), False),
        ("TF32", Precision(), True),
        ("bf16", Precision(bf16=True), False),
    ):
        workload = make_workload(case, precision)
        prepare_device(str(DEVICE), tf32=tf32)
        graph = capture(make_stack(case, runs, workload))
        batch = batch_of(graph.stack)
        speed = runs / step_seconds(lambda graph=graph, batch=batch: graph.step(batch))  # type: ignore[misc]
        print_row(f"cnn28: {runs} runs, {name}", speed, "run-steps/s, captured")


def measure_memory() -> None:
    """Peak memory of a step, against the trace on `meta` that chooses the width."""
    for name in ("mlp", "cnn28"):
        case = CASES[name]
        measure_peak(case, 1)  # libraries allocate their workspaces once
        for runs in (1, 8, 64):
            peak = measure_peak(case, runs)
            traced = make_stack(case, runs, launches.make_workload(case))
            split = traced.data.sample_validation()
            expected = state_bytes(traced) + step_bytes(traced, batch_of(traced), split)
            note = f"MiB; traced {expected / 2**20:,.1f} MiB, ratio {expected / max(1, peak):.2f}, goal 0.85 to 1.15"
            print_row(f"memory {name}, {runs} runs", peak / 2**20, note)


def measure_peak(case: Case, runs: int) -> int:
    """Return the peak memory of a step and an evaluation of a stack, in bytes, with its state; 0 on a CPU."""
    workload = make_workload(case)
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if DEVICE.type == "cuda" else 0
    stack = make_stack(case, runs, workload)
    stack.step(batch_of(stack))
    stack.train(False)
    stack.evaluate(workload.data.sample_validation())
    return torch.cuda.max_memory_allocated() - before if DEVICE.type == "cuda" else 0


def measure_first_metric() -> None:
    """Seconds from the start of a process to the first points of a grid of 256 runs."""
    began = time.perf_counter()
    words = [sys.executable, str(ROOT / "bench" / "first_metric.py"), str(DEVICE)]
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    if not result.stdout.split():
        raise RuntimeError(" ".join(result.stderr.split()) or "the grid ended without a point")
    first = float(result.stdout.split()[0])
    print_row("first metric after the start", first, f"s, goal <= 6; whole grid {time.perf_counter() - began:.1f} s")


def measure_utilisation() -> None:
    """Use of the GPU while a captured stack trains."""
    for name, runs in (("mlp", 256), ("cnn28", 64)):
        graph = capture(make_stack(CASES[name], runs))
        batch = batch_of(graph.stack)
        with record_activity() as activity:
            step_seconds(lambda graph=graph, batch=batch: graph.step(batch))  # type: ignore[misc]
        if activity.busy:
            mean = sum(activity.busy) / len(activity.busy)
            print_row(f"{name}: {runs} runs, GPU busy", mean, f"% in {len(activity.busy)} samples of nvidia-smi")
        else:
            print_row(f"{name}: {runs} runs, GPU busy", "not measured", "nvidia-smi shows no use of this GPU")
        if activity.active_sms is None:
            print_row(f"{name}: {runs} runs, SMs active", "not measured", activity.reason)
        else:
            print_row(f"{name}: {runs} runs, SMs active", activity.active_sms, "% of the SMs, mean")


def measure_jax() -> None:
    """The MLP with Adam in JAX, vmap and jit over 256 runs, on the same GPU."""
    backend = "gpu" if DEVICE.type == "cuda" else "cpu"
    speed, compile_seconds = measure_jax_mlp(256, BATCH_SIZE, MEASURED_SECONDS, backend=backend)
    print_row("mlp: 256 runs in JAX", speed, f"run-steps/s, vmap and jit; the first call took {compile_seconds:.1f} s")


def measure_stacks() -> None:
    """The cases for CUDA of bench/stacks.py."""
    words = [sys.executable, str(ROOT / "bench" / "stacks.py"), "--quick"]
    cases = ["--case", "cuda-mlp", "--case", "cuda-cnn28", "--case", "cuda-big"]
    result = subprocess.run([*words, *cases], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    case = "none"
    for line in result.stdout.splitlines():
        if line.endswith(":"):
            case = line.partition(",")[0]
        elif "run-steps/s" in line:
            name, speed, _, *rest = line.split()
            print_row(f"stacks {case}, {name}", speed, " ".join(rest))


PARTS: dict[str, Callable[[], None]] = {
    "tests": measure_tests,
    "launches": measure_launches,
    "steps": measure_steps,
    "precision": measure_precision,
    "memory": measure_memory,
    "first_metric": measure_first_metric,
    "utilisation": measure_utilisation,
    "jax": measure_jax,
    "stacks": measure_stacks,
}


def main() -> None:
    global DEVICE, MEASURED_SECONDS
    parser = argparse.ArgumentParser(description="Measure a part of bench/gpu.sh.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda:0", help="cpu: run briefly, to check that the part works  [cuda:0]")
    options = parser.parse_args()
    DEVICE = torch.device(options.device)
    if DEVICE.type == "cpu":
        MEASURED_SECONDS = 0.01
    PARTS[options.part]()


if __name__ == "__main__":
    main()
