"""Statistics over many runs: confidence intervals, comparisons, effects of parameters, importance, and the verdict.

`explain` answers for the runs that `select_runs` selected. `why` answers for a list of `Observation`s; `observe` makes
them from run records as they are. The output is an `Answer`. No text is formatted here.
"""

from labbench.analysis.answer import Answer
from labbench.analysis.selection import KeyOptions, Scope, Selection, select_runs
from labbench.analysis.table import Observation, observe
from labbench.analysis.why import AnswerOptions, explain, why

__all__ = [
    "Answer",
    "AnswerOptions",
    "KeyOptions",
    "Observation",
    "Scope",
    "Selection",
    "explain",
    "observe",
    "select_runs",
    "why",
]
