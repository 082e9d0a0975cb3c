"""Measure the time of a search against that of peers: python bench/search_peers.py --db search.db --results peers.jsonl

Successive halving of `labbench run` with two workers, Optuna (TPE with HyperbandPruner, two processes) and Ray Tune's
ASHA (two trials at a time) search the grids of bench/search.py. The peers train the plain PyTorch loop with a
DataLoader, one thread each. The tools take turns for each of five seeds, so that other load affects all of them. Each
measurement is appended to --results, and one that is there is not repeated, so that the script may be interrupted.

Start-up, with the import of torch, is shown apart. Optuna has the run-epochs that halving takes before its new seeds;
ASHA starts all configurations. labbench's time includes the new seeds of its finalists and the end of its process, that
of the peers ends with their result. A choice has *reached* the goal as in bench/search.py, by the curves in --db, which
that script trains.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SHORT_PARAMS = {"epochs": 9, "train_size": 200, "hidden": [32]}
GRIDS = ("optimizers", "mlp")
TOOLS = ("labbench", "optuna", "ray")
ETA = 3
PROCESSES = 2


def import_torch() -> None:
    """Import what training needs, as part of the start-up."""
    for name in ("torch.utils.data", "labbench.train.tasks.task"):
        importlib.import_module(name)


def iter_accuracies(config: dict[str, Any]) -> Iterator[float]:
    """Train one run in a plain PyTorch loop; yield its validation accuracy after each epoch."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset

    from labbench.params.param import TRAINING, with_defaults
    from labbench.train.tasks.task import load_task, make_data, make_model

    torch.set_num_threads(1)
    task = load_task("digits")
    config = with_defaults(config, {**TRAINING, **task.params})
    data, model = make_data(task, config).to(torch.device("cpu"), torch.float32), make_model(task, config)
    optimizer = make_optimizer(config, list(model.parameters()))
    torch.manual_seed(config["seed"])
    batches = DataLoader(TensorDataset(*data.train), batch_size=config["batch_size"], shuffle=True)
    for _ in range(config["epochs"]):
        model.train()
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            yield (model(data.val[0]).argmax(dim=1) == data.val[1]).float().mean().item()


def make_optimizer(config: dict[str, Any], parameters: list[Any]) -> Any:
    """Return the torch optimizer of a config."""
    from torch import optim

    name, lr, decay = config["optimizer"], config["lr"], config["weight_decay"]
    if name == "sgd":
        momentum, nesterov = config["momentum"], config["nesterov"]
        return optim.SGD(parameters, lr, momentum, weight_decay=decay, nesterov=nesterov)
    classes = {"adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop, "adagrad": optim.Adagrad}
    return classes[name](parameters, lr, weight_decay=decay)


def read_configs(grid: Path, *, short: bool) -> list[dict[str, Any]]:
    """Return the configurations of a grid file without their seeds."""
    from labbench.runner.expanded_grid import load_grid

    configs = {}
    for run in load_grid(grid).runs:
        config = {**run.config, **(SHORT_PARAMS if short else {})}
        config.pop("seed")
        configs[json.dumps(config, sort_keys=True)] = config
    return list(configs.values())


def halving_epochs(count: int, epochs: int) -> int:
    """Return the run-epochs of successive halving, without new seeds."""
    from labbench.runner.search.rungs import default_min_epochs, make_brackets, rung_epochs, total_cost

    rungs = rung_epochs(epochs, ETA, default_min_epochs(epochs))
    return total_cost(make_brackets("halving", count, rungs, ETA))


def search_with_optuna(configs: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Search in two processes that share a study."""
    import optuna

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "journal"))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(study_name="s", storage=_journal(path), direction="maximize")
        context = multiprocessing.get_context("spawn")
        spent, first = context.Value("i", 0), context.Value("d", 0.0)
        workers = [
            context.Process(target=_optimize, args=(path, configs, seed, number, spent, first))
            for number in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {"index": study.best_trial.user_attrs["index"], "first": first.value, "epochs": spent.value}


def _journal(path: str) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(path))


def _optimize(path: str, configs: list[dict[str, Any]], seed: int, number: int, spent: Any, first: Any) -> None:
    """Run trials until the run-epochs of successive halving are spent."""
    import optuna

    import_torch()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    epochs = configs[0]["epochs"]
    budget = halving_epochs(len(configs), epochs)
    texts = [{key: json.dumps(value) for key, value in config.items()} for config in configs]
    keys = [key for key in texts[0] if len({text.get(key) for text in texts}) > 1]
    choices = {key: sorted({text.get(key, "null") for text in texts}) for key in keys}
    indices = {tuple(text.get(key, "null") for key in keys): index for index, text in enumerate(texts)}

    def objective(trial: optuna.Trial) -> float:
        point = tuple(trial.suggest_categorical(key, choices[key]) for key in keys)
        if (index := indices.get(point)) is None:  # the grid lacks it
            raise optuna.TrialPruned
        trial.set_user_attr("index", index)
        with first.get_lock():
            first.value = first.value or time.time()
        value = 0.0
        for epoch, value in enumerate(iter_accuracies({**configs[index], "seed": seed}), 1):
            with spent.get_lock():
                spent.value += 1
            trial.report(value, epoch)
            if epoch < epochs and trial.should_prune():
                raise optuna.TrialPruned
        return value

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=ETA)
    sampler = optuna.samplers.TPESampler(seed=seed * PROCESSES + number, constant_liar=True)
    study = optuna.load_study(study_name="s", storage=_journal(path), sampler=sampler, pruner=pruner)
    while spent.value < budget:
        study.optimize(objective, n_trials=1)


def search_with_ray(configs: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Search with Ray Tune's ASHA over all configurations, two at a time."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from labbench.runner.search.rungs import default_min_epochs

    epochs = configs[0]["epochs"]
    order = _shuffled(len(configs), seed)

    def train(config: dict[str, Any]) -> None:
        import_torch()
        began = time.time()
        for value in iter_accuracies({**configs[config["index"]], "seed": seed}):
            tune.report({"accuracy": value, "began": began})

    paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "OMP_NUM_THREADS": "1"}
    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths})
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space={"index": tune.grid_search(order)},
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                scheduler=ASHAScheduler(max_t=epochs, grace_period=default_min_epochs(epochs), reduction_factor=ETA),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        rows = [result for result in results if result.metrics and "accuracy" in result.metrics]
    full = [row for row in rows if row.metrics["training_iteration"] >= epochs] or rows
    best = max(full, key=lambda row: row.metrics["accuracy"])
    return {
        "index": best.config["index"],
        "first": min(row.metrics["began"] for row in rows),
        "epochs": sum(row.metrics["training_iteration"] for row in rows),
    }


def _shuffled(count: int, seed: int) -> list[int]:
    import random

    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def search_with_labbench(grid: Path, seed: int, *, short: bool) -> dict[str, Any]:
    """Run `labbench run` with successive halving, 3 finalists and 3 new seeds, in two workers."""
    from labbench.store.reader import Reader

    text = grid.read_text()
    seeds = next(line for line in text.splitlines() if line.startswith("seeds ="))
    text = text.replace(seeds, f"seeds = [{seed}]")
    new_seeds = [other for other in range(6) if other != seed][:3]
    text += f'\n[search]\nmethod = "halving"\nmetric = "val/accuracy"\nseeds = {new_seeds}\n'
    with tempfile.TemporaryDirectory() as folder:
        path, db = Path(folder, "grid.toml"), Path(folder, "runs.db")
        path.write_text(text)
        words = [sys.executable, "-m", "labbench", "--db", str(db), "run", str(path), "--workers", str(PROCESSES)]
        for key, value in (SHORT_PARAMS if short else {}).items():
            words += ["--set", f"{key}={value}"]
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        end = time.time()
        lines = (result.stdout + result.stderr).splitlines()
        line = next(line for line in lines if "best configuration" in line)
        with Reader(db) as reader:
            runs = reader.runs(None)
            config = next(run.config for run in runs if f"({run.key})" in line)
            first = min(run.started for run in runs if run.started is not None)
            epochs = sum(run.summary["epoch"].last for run in runs if "epoch" in run.summary)
    settings = {key: value for key, value in config.items() if key != "seed"}
    return {"config": settings, "first": first, "epochs": int(epochs), "end": end}


def measure(tool: str, grid: Path, seed: int, *, short: bool) -> dict[str, Any]:
    """Return the times of one search, in seconds since 1970, its run-epochs and its choice."""
    if tool == "labbench":
        return search_with_labbench(grid, seed, short=short)
    configs = read_configs(grid, short=short)
    result = (search_with_optuna if tool == "optuna" else search_with_ray)(configs, seed)
    return {**result, "config": configs[result.pop("index")], "end": time.time()}


def measure_in_process(python: str, words: Sequence[str]) -> dict[str, Any]:
    """Run one search in an interpreter of its own; `python` has the tool installed."""
    began = time.time()
    command = [python, __file__, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    output = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if output.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output.stderr[-2000:]}")
    result = json.loads(output.stdout.splitlines()[-1])
    return {**result, "began": began}


def report(name: str, rows: list[dict[str, Any]], db: Path) -> None:
    """Print medians with ranges, and labbench's share of each peer's time in the same round."""
    print(f"\n{name}, {len({row['seed'] for row in rows})} rounds")
    print(f"{'tool':10}{'search, s':>24}{'start-up, s':>24}{'run-epochs':>12}{'labbench / tool':>24}  reached")
    gap = _make_judge(name, db)
    seconds = {(row["tool"], row["seed"]): row["end"] - row["first"] for row in rows}
    for tool in TOOLS:
        mine = [row for row in rows if row["tool"] == tool]
        rounds = [row["seed"] for row in mine if ("labbench", row["seed"]) in seconds]
        if not rounds:
            continue
        ratios = [seconds["labbench", seed] / seconds[tool, seed] for seed in rounds]
        reached = f"{sum(gap(row['config']) <= 1 for row in mine)} of {len(mine)}" if gap else "not judged"
        print(
            f"{tool:10}{_range([seconds[tool, seed] for seed in rounds], '.1f'):>24}"
            f"{_range([row['first'] - row['began'] for row in mine], '.1f'):>24}"
            f"{statistics.median(row['epochs'] for row in mine):12.0f}{_range(ratios, '.2f'):>24}  {reached}"
        )


def _make_judge(name: str, db: Path) -> Callable[[Mapping[str, Any]], float] | None:
    """Return a function of a config: its distance from the best one, in standard deviations of a seed."""
    from search_problems import read_problem

    from labbench.configs import canonical_json, distinguishing_keys

    if not db.exists():
        return None
    problem = read_problem(name, db)
    keys = distinguishing_keys(problem.configs)
    means = problem.judged_means().tolist()

    def point(config: Mapping[str, Any]) -> str:
        return canonical_json({key: config.get(key) for key in keys})

    mean_of = {point(config): mean for config, mean in zip(problem.configs, means, strict=True)}
    best, deviation = problem.best_mean(), problem.seed_deviation()
    return lambda config: (best - mean_of[point(config)]) / deviation


def _range(values: Sequence[float], style: str) -> str:
    return f"{statistics.median(values):{style}} ({min(values):{style}}-{max(values):{style}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", type=Path, default=Path("search.db"), help="Database that bench/search.py trained.")
    parser.add_argument("--results", type=Path, default=Path("peers.jsonl"))
    parser.add_argument("--problem", choices=GRIDS, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tool", choices=TOOLS, action="append", help="Measure these tools only.")
    parser.add_argument("--only-seed", type=int, help="Run one search of --tool and print it as JSON.")
    parser.add_argument("--optuna-python", default=sys.executable, help="Interpreter that has Optuna.")
    parser.add_argument("--ray-python", default=sys.executable, help="Interpreter that has Ray Tune.")
    parser.add_argument("--short", action="store_true", help="Train small networks on few samples.")
    options = parser.parse_args()
    names = options.problem or GRIDS
    tools = options.tool or TOOLS
    if options.only_seed is not None:
        from search_problems import write_grid

        print(json.dumps(measure(tools[0], write_grid(names[0]), options.only_seed, short=options.short)))
        return
    pythons = {"labbench": sys.executable, "optuna": options.optuna_python, "ray": options.ray_python}
    for name in names:
        for seed in range(options.seeds):
            for tool in tools:
                done = _read_results(options.results, name)
                if any((row["tool"], row["seed"]) == (tool, seed) for row in done):
                    continue
                words = ["--tool", tool, "--problem", name, "--only-seed", str(seed), *(["--short"] * options.short)]
                row = {"problem": name, "tool": tool, "seed": seed, **measure_in_process(pythons[tool], words)}
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        report(name, _read_results(options.results, name), options.db)


def _read_results(path: Path, name: str) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["problem"] == name]


if __name__ == "__main__":
    main()
