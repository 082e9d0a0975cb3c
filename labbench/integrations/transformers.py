"""Callback for Hugging Face's Trainer: `Trainer(..., callbacks=[LabbenchCallback()])`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from labbench.tracking.run import Run
from labbench.tracking.start import start


class LabbenchCallback(TrainerCallback):
    """Record what the Trainer logs in a labbench run, with its `TrainingArguments` as the config.

    The run starts with the training and stays open for an evaluation after it; it ends with the script, with the next
    training, or with `callback.run.finish()`. Metrics are named as the Trainer names them for TensorBoard:
    `train/loss`, `eval/loss`. Only the process of rank 0 records.

    Args:
        name: Name of the run; default: `run_name` of the arguments.
        options: Other arguments of `labbench.start`: `experiment`, `db`, `tags`, `config`, ...
    """

    def __init__(self, name: str | None = None, **options: Any) -> None:
        self.name = name
        self.options = options
        self.run: Run | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the run."""
        if not state.is_world_process_zero:
            return
        if self.run is not None:
            self.run.finish()
        name = self.name or (args.run_name if args.run_name != args.output_dir else None)
        config = {**args.to_sanitized_dict(), **(state.trial_params or {}), **self.options.get("config", {})}
        self.run = start(name, **(self.options | {"config": config}))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log metrics at a step of the optimizer."""
        if self.run is not None and logs:
            self.run.log({_metric_name(key): value for key, value in logs.items()}, state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Wait until everything before the checkpoint is in the database."""
        if self.run is not None:
            self.run.flush()


def _metric_name(key: str) -> str:
    for prefix in ("eval", "test"):
        if key.startswith(f"{prefix}_"):
            return f"{prefix}/{key.removeprefix(f'{prefix}_')}"
    return key if key == "epoch" else f"train/{key}"
