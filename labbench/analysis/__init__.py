"""Statistics over many runs: confidence intervals, comparisons, effects of parameters, importance, and the verdict.

The input is a list of `Observation`s (`observe` makes them from run records), the output an `Answer`. No text is
formatted here.
"""

from labbench.analysis.answer import Answer
from labbench.analysis.table import Observation, observe
from labbench.analysis.why import why

__all__ = ["Answer", "Observation", "observe", "why"]
