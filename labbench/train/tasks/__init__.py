"""Tasks: built in, or loaded from a user's file."""

from labbench.train.tasks.task import load_task, make_data, make_model

__all__ = ["load_task", "make_data", "make_model"]
