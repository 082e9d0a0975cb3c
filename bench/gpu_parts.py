"""Parts of bench/gpu.sh: each prints rows of `name<TAB>value<TAB>note` and ends.

python bench/gpu_parts.py PART
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import launches
import torch
from launches import BATCH_SIZE, CASES, Case, make_config
from torch import Tensor, nn

from labbench.records import Points, RunRecord, Runtime
from labbench.runner import planner
from labbench.train.data.dataset import Data
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.cuda.live_bytes import state_bytes, step_bytes
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Workload
from labbench.train.loop import train
from labbench.train.precision import Precision, prepare_device
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, load_task, make_model

TRAINING_SAMPLES = 1024
MEASURED_SECONDS = 3.0
ROOT = Path(__file__).parents[1]

Step = Callable[[], object]


def print_row(name: str, value: float | str, note: str = "") -> None:
    print(f"{name}\t{value if isinstance(value, str) else f'{value:,.4g}'}\t{note}", flush=True)


def make_workload(case: Case, precision: Precision | None = None) -> Workload:
    """Return a case's workload with random images on the GPU."""
    device = torch.device(prepare_device("cuda:0"))
    generator = torch.Generator().manual_seed(0)
    splits = [
        (torch.rand(n, *case.image, generator=generator), torch.randint(10, (n,), generator=generator))
        for n in (TRAINING_SAMPLES, BATCH_SIZE)
    ]
    data = Data(*splits).to(device, torch.float32)
    task = FileTask({}, lambda config: data, case.model, cross_entropy, accuracy)
    return Workload(task, data, BATCH_SIZE, precision or Precision())


def make_stack(case: Case, runs: int, workload: Workload | None = None) -> StackedStepper:
    """Return a stack of runs of a case on the GPU."""
    workload, configs = workload or make_workload(case), [make_config(case, seed) for seed in range(runs)]
    models = [make_model(workload.task, config) for config in configs]
    members = list(map(StackMember.from_model, models, configs))
    stack = StackedStepper("stacked", models[0], members, workload, StepCounter())
    stack.train(True)
    return stack


def capture(stack: StackedStepper) -> CudaGraphStepper:
    stepper = CudaGraphStepper(stack, BATCH_SIZE)
    stepper.capture()
    return stepper


def batch_of(stack: StackedStepper) -> Tensor:
    """Return the indices of a batch of each run, shape (S, N)."""
    runs = len(stack.updates.parameters)
    return stack.data.first_batch(list(range(runs)), BATCH_SIZE)


def step_seconds(step: Step) -> float:
    """Return the seconds of a step, over about `MEASURED_SECONDS`."""
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < MEASURED_SECONDS:
        for _ in range(20):
            step()
        torch.cuda.synchronize()
        steps += 20
    return (time.perf_counter() - began) / steps


def plain_step(case: Case, workload: Workload) -> Step:
    """Return a step of one run as people write it, with all data resident on the GPU."""
    assert isinstance(workload.data, Data)
    model = case.model(make_config(case, 0)).to("cuda:0")
    optimizer = torch.optim.Adam(model.parameters())
    (inputs, targets), loss_function = workload.data.train, nn.CrossEntropyLoss()
    indices = torch.randperm(len(inputs), device="cuda:0")[:BATCH_SIZE]

    def step() -> None:
        optimizer.zero_grad()
        outputs = model(inputs[indices])
        loss_function(outputs, targets[indices]).backward()
        optimizer.step()

    return step


def measure_tests() -> None:
    """The tests that need a CUDA device."""
    if find_spec("pytest") is None:
        raise RuntimeError("pytest is not installed")
    words = [sys.executable, "-m", "pytest", "-q", "tests/train/engine/cuda", "tests/train/grouping/test_memory.py"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    for line in lines[:20]:
        print_row("test", "failed", line.partition(" - ")[0])
    print_row("CUDA tests", "passed" if result.returncode == 0 else "failed", result.stdout.strip().splitlines()[-1])


def measure_launches() -> None:
    """Kernels of a stacked step by the profiler, against the count on `meta`."""
    for name, case in CASES.items():
        stack = make_stack(case, 16)
        batch = batch_of(stack)
        for _ in range(3):
            stack.step(batch)
        torch.cuda.synchronize()
        steps = 10
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(steps):
                stack.step(batch)
            torch.cuda.synchronize()
        kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events()) / steps
        counted = launches.count_stacked_step(case, 16).launches
        print_row(f"launches {name}", kernels, f"{counted} counted on meta, ratio {kernels / counted:.2f}")


def measure_steps() -> None:
    """Run-steps per second: plain loop, stack, captured stack."""
    for name, runs in (("mlp", 256), ("mlp, dropout, batch norm", 256), ("cnn28", 64)):
        case = CASES[name]
        workload = make_workload(case)
        plain = 1 / step_seconds(plain_step(case, workload))
        print_row(f"{name}: plain loop", plain, "run-steps/s, resident data")
        stack = make_stack(case, runs, workload)
        batch = batch_of(stack)
        stacked = runs / step_seconds(lambda stack=stack, batch=batch: stack.step(batch))  # type: ignore[misc]
        print_row(f"{name}: {runs} runs stacked", stacked, f"run-steps/s, {stacked / plain:.1f} times the plain loop")
        began = time.perf_counter()
        graph = capture(stack)
        seconds = time.perf_counter() - began
        captured = runs / step_seconds(lambda graph=graph, batch=batch: graph.step(batch))  # type: ignore[misc]
        note = f"run-steps/s, {captured / plain:.1f} times the plain loop; the capture took {seconds:.2f} s"
        print_row(f"{name}: {runs} runs captured", captured, note)


def measure_precision() -> None:
    """Captured stacks of the CNN with bfloat16 and TF32."""
    case, runs = CASES["cnn28"], 64
    for name, precision, tf32 in (
        ("float32", Precision(), False),
        ("TF32", Precision(), True),
        ("bf16", Precision(bf16=True), False),
    ):
        workload = make_workload(case, precision)
        prepare_device("cuda:0", tf32=tf32)
        graph = capture(make_stack(case, runs, workload))
        batch = batch_of(graph.stack)
        speed = runs / step_seconds(lambda graph=graph, batch=batch: graph.step(batch))  # type: ignore[misc]
        print_row(f"cnn28: {runs} runs, {name}", speed, "run-steps/s, captured")


def measure_memory() -> None:
    """Peak memory of a step, against the trace on `meta` that chooses the width."""
    for name in ("mlp", "cnn28"):
        case = CASES[name]
        for runs in (1, 8, 64):
            workload = make_workload(case)
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            stack = make_stack(case, runs, workload)
            assert isinstance(workload.data, Data)
            held_out = workload.data.sample_validation()
            torch.cuda.reset_peak_memory_stats()
            stack.step(batch_of(stack))
            stack.train(False)
            stack.evaluate(held_out)
            peak = torch.cuda.max_memory_allocated() - before
            on_meta = replace(workload, data=workload.data.to(launches.META, torch.float32))
            traced = make_stack(case, runs, on_meta)
            split = on_meta.data.sample_validation()
            expected = state_bytes(traced) + step_bytes(traced, batch_of(traced), split)
            note = f"MiB; traced {expected / 2**20:,.1f} MiB, ratio {expected / peak:.2f}"
            print_row(f"memory {name}, {runs} runs", peak / 2**20, note)
            del stack


def measure_first_metric() -> None:
    """Seconds from the start of a process to the first points of a stack of 256 runs."""
    began = time.perf_counter()
    result = subprocess.run([sys.executable, __file__, "_first_metric"], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    first = float(result.stdout.split()[-1])
    print_row("first metric after the start", first, f"s, goal <= 6; whole process {time.perf_counter() - began:.1f} s")


def train_until_first_points() -> None:
    """Train 256 runs on the digits until the first points; print the seconds since the process started."""
    config = {"epochs": 5, "optimizer": "adam", "hidden": [128, 64]}
    records = [
        RunRecord(seed, f"run{seed:05}", "", "first", "running", {**config, "seed": seed}) for seed in range(256)
    ]
    stack = planner.make_stack(records, task="digits", stop=None, runtime=Runtime())
    for event in train(stack, load_task("digits"), "cuda:0"):
        if isinstance(event, Points):
            print(time.time() - process_start())
            return


def process_start() -> float:
    """Return the time at which this process started, in seconds since the epoch (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def measure_utilisation() -> None:
    """Use of the GPU while a captured stack trains, by nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        raise RuntimeError("nvidia-smi is not installed")
    for name, runs in (("mlp", 256), ("cnn28", 64)):
        graph = capture(make_stack(CASES[name], runs))
        batch = batch_of(graph.stack)
        with sampled_utilisation() as samples:
            step_seconds(lambda graph=graph, batch=batch: graph.step(batch))  # type: ignore[misc]
        mean = sum(samples) / max(1, len(samples))
        print_row(f"{name}: {runs} runs, GPU busy", mean, f"% in {len(samples)} samples of nvidia-smi")


@contextmanager
def sampled_utilisation() -> Iterator[list[float]]:
    """Sample the use of the GPU in percent about every 0.3 s, inside the block."""
    samples: list[float] = []
    ended = threading.Event()
    words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

    def sample() -> None:
        while not ended.wait(0.3):
            result = subprocess.run(words, capture_output=True, text=True, check=False)
            samples.extend(float(line) for line in result.stdout.split() if line.replace(".", "").isdigit())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def measure_jax() -> None:
    """The MLP with Adam in JAX, vmap and jit over 256 runs, on the same GPU."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax
    import jax.numpy as jnp

    if jax.default_backend() != "gpu":
        raise RuntimeError(f"jax has no GPU here, only {jax.default_backend()}")
    runs, sizes = 256, ((64, 128), (128, 64), (64, 10))
    keys = jax.random.split(jax.random.key(0), len(sizes))
    weights = [
        (jax.random.normal(key, (runs, i, o)) / i**0.5, jnp.zeros((runs, o)))
        for key, (i, o) in zip(keys, sizes, strict=True)
    ]
    state: Any = (weights, *(jax.tree.map(jnp.zeros_like, weights) for _ in range(2)), jnp.zeros(runs))
    inputs = jax.random.uniform(jax.random.key(1), (runs, BATCH_SIZE, 64))
    targets = jax.random.randint(jax.random.key(2), (runs, BATCH_SIZE), 0, 10)

    def loss(weights: Any, x: Any, y: Any) -> Any:
        for index, (w, b) in enumerate(weights):
            x = x @ w + b
            x = jax.nn.relu(x) if index < len(weights) - 1 else x
        return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1).mean()

    def step(state: Any, x: Any, y: Any) -> Any:
        w, m, v, t = state
        value, g = jax.value_and_grad(loss)(w, x, y)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)

        def update(w: Any, m: Any, v: Any) -> Any:
            return w - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

        return (jax.tree.map(update, w, m, v), m, v, t), value

    began = time.perf_counter()
    compiled = jax.jit(jax.vmap(step), donate_argnums=0)
    state, losses = compiled(state, inputs, targets)
    losses.block_until_ready()
    compile_seconds = time.perf_counter() - began
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < MEASURED_SECONDS:
        for _ in range(20):
            state, losses = compiled(state, inputs, targets)
        losses.block_until_ready()
        steps += 20
    speed = runs * steps / (time.perf_counter() - began)
    print_row("mlp: 256 runs in JAX", speed, f"run-steps/s, vmap and jit; compiling took {compile_seconds:.1f} s")


def measure_stacks() -> None:
    """The cases for CUDA of bench/stacks.py."""
    words = [sys.executable, str(ROOT / "bench" / "stacks.py"), "--quick"]
    cases = ["--case", "cuda-mlp", "--case", "cuda-cnn28", "--case", "cuda-big"]
    result = subprocess.run([*words, *cases], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    case = ""
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
    "_first_metric": train_until_first_points,
}

if __name__ == "__main__":
    PARTS[sys.argv[1]]()
