"""Replacement of `torch.utils.tensorboard.SummaryWriter` that records scalars and images in a labbench run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.messages import warn_once
from labbench.tracking.images import Image
from labbench.tracking.run import Run
from labbench.tracking.start import start


class SummaryWriter:
    """Record scalars, images, figures and hyperparameters; the other methods do nothing, with one warning.

    Args:
        log_dir: Its last part is the name of the run.
        comment: Appended to the name.
        options: Arguments of `labbench.start`; arguments of torch's class have no effect.
    """

    def __init__(self, log_dir: str | PathLike[str] | None = None, comment: str = "", **options: Any) -> None:
        for name in ("purge_step", "max_queue", "flush_secs", "filename_suffix"):
            options.pop(name, None)
        name = (Path(log_dir).name if log_dir else "") + comment
        self.run: Run = start(name or None, **options)
        self.log_dir = str(log_dir or "")
        self._step = 0

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, *others: Any, **options: Any
    ) -> None:
        """Log a number; without a step, at the step of the last call."""
        self._step = self._step if global_step is None else int(global_step)
        self.run.log({tag: scalar_value}, self._step)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None, walltime: Any = None
    ) -> None:
        """Log numbers as `MAIN_TAG/TAG`."""
        self._step = self._step if global_step is None else int(global_step)
        self.run.log({f"{main_tag}/{tag}": value for tag, value in tag_scalar_dict.items()}, self._step)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: Any = None,
        dataformats: str = "CHW",
    ) -> None:
        """Log an image of shape (C, H, W), or in the order of `dataformats`: "HWC" or "HW"."""
        pixels = img_tensor.detach().cpu().numpy() if hasattr(img_tensor, "detach") else img_tensor
        self._log_image(tag, pixels.transpose(1, 2, 0) if dataformats == "CHW" else pixels, global_step)

    def add_figure(self, tag: str, figure: Any, global_step: int | None = None, *_: Any, **__: Any) -> None:
        """Log a figure of matplotlib as an image."""
        self._log_image(tag, figure, global_step)

    def _log_image(self, tag: str, data: Any, step: int | None) -> None:
        self._step = self._step if step is None else int(step)
        try:
            self.run.log({tag: Image(data)}, self._step)
        except (InputError, OSError) as error:  # OSError: too many open files
            warn_once(f"the image `{tag}` is not recorded: {error}")

    def add_hparams(self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Add hyperparameters to the config of the run, and log the metrics."""
        self.run.config.update(hparam_dict)
        self.run.log(dict(metric_dict), self._step)

    def get_logdir(self) -> str:
        """Return `log_dir`, where nothing is written."""
        return self.log_dir

    def flush(self) -> None:
        """Wait until everything that was logged is in the database."""
        self.run.flush()

    def close(self) -> None:
        """End the run."""
        self.run.finish()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.run.finish(0 if kind is None else 1)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda *_, **__: warn_once(
            f"SummaryWriter of labbench records numbers and images only: {name}() does nothing"
        )
