"""What set-ups cost, in a sentence."""

from __future__ import annotations

from labbench.analysis.answer import Answer
from labbench.analysis.efficiency import Reach
from labbench.analysis.naming import describe, levels_of
from labbench.analysis.setups import freeze
from labbench.analysis.spending import Efficiency, Spending
from labbench.text import clean, setting


def cost_sentences(answer: Answer, spent: Efficiency | None) -> list[str]:
    """Who gets to the target first, what the best set-up takes, and who never gets there."""
    if spent is None or answer.best is None:
        return []
    target = f"{clean(answer.metric)} {setting(float(f'{spent.target:.4g}'))}"
    if not spent.asked:
        target += " (5 % short of the best)"
    if not spent.setups:
        return [f"no set-up gets to {target}"]
    first = spent.setups[0]
    said = f"quickest to {target}: {_who(first, answer)}: {_steps(first)}"
    best = next((one for one in spent.setups if freeze(one.config) == freeze(answer.best.config)), None)
    if best is not None and best is not first and best.reached["steps"].median is not None:
        said += f"; the best set-up takes {setting(best.reached['steps'].median)} steps"
    if spent.never:
        said += f"; {spent.never} of {spent.total} set-ups never get there"
    return [said]


def _who(spending: Spending, answer: Answer) -> str:
    return describe(spending.differing, levels_of(answer)) or "the only set-up"


def _steps(spending: Spending) -> str:
    steps = spending.reached["steps"]
    said = f"{setting(steps.median)} steps" if steps.median is not None else "in fewer than half of its runs"
    seconds = spending.reached.get("seconds")
    if seconds is not None and seconds.median:
        said += f", {seconds.median:.2g} s of its own computing"
    return f"{said} ({_runs(steps)})"


def _runs(steps: Reach) -> str:
    if steps.reached < steps.runs:
        return f"{steps.reached} of {steps.runs} runs get there"
    return f"median of {steps.runs} runs" if steps.runs > 1 else "one run"
