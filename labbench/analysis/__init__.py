"""What the numbers of many runs say: intervals from few seeds, comparisons, effects, importance, and the verdict.

Numbers only: runs come in as `Observation`s (`observe` makes them from records), and an `Answer` comes out.
"""

from labbench.analysis.answer import Answer
from labbench.analysis.table import Observation, observe
from labbench.analysis.why import why

__all__ = ["Answer", "Observation", "observe", "why"]
