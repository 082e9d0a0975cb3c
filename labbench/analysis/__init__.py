"""What the numbers of many runs say: intervals from few seeds, comparisons, effects, importance, and the verdict.

Numbers only: runs come in as `Observation`s (`observe` makes them from records), and an `Answer` comes out.
"""

from labbench.analysis.answer import Answer
from labbench.analysis.setups import Observation, observe
from labbench.analysis.why import why
from labbench.analysis.words import sentences

__all__ = ["Answer", "Observation", "observe", "sentences", "why"]
