"""labbench: train grids of PyTorch experiments, record every number in one SQLite file, understand the runs.

Importing this package costs the standard library alone: torch, Textual and numpy are loaded where they are used.
"""

__version__ = "0.1.0"
