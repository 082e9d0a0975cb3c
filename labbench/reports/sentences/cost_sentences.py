"""Format the cost of reaching a target as sentences."""

from __future__ import annotations

from labbench.analysis.answer import Answer
from labbench.analysis.costs import Reach
from labbench.analysis.setup_costs import Efficiency, SetupCosts
from labbench.analysis.table import freeze
from labbench.reports.formatting import describe_settings, parameter_levels
from labbench.text import clean, format_setting


def cost_sentences(answer: Answer, efficiency: Efficiency | None) -> list[str]:
    """Report the configuration that reaches the target fastest, and the cost of the best one.

    Also reports how many configurations never reach the target.
    """
    if efficiency is None or answer.best is None:
        return []
    target = f"{clean(answer.metric)} {format_setting(float(f'{efficiency.target:.4g}'))}"
    if not efficiency.target_given:
        target += " (5 % short of the best)"
    if not efficiency.setups:
        return [f"no configuration reaches {target}"]
    fastest = efficiency.setups[0]
    sentence = f"fastest to {target}: {_cost_setup_phrase(fastest, answer)}: {_steps_phrase(fastest)}"
    best = next((costs for costs in efficiency.setups if freeze(costs.config) == freeze(answer.best.config)), None)
    if best is not None and best is not fastest and best.reached["steps"].median is not None:
        sentence += f"; the best configuration takes {format_setting(round(best.reached['steps'].median))} steps"
    if efficiency.never:
        verb = "reaches" if efficiency.never == 1 else "reach"
        sentence += f"; {efficiency.never} of {efficiency.total} configurations never {verb} it"
    return [sentence]


def _cost_setup_phrase(costs: SetupCosts, answer: Answer) -> str:
    return describe_settings(costs.differing, parameter_levels(answer)) or "the only configuration"


def _steps_phrase(costs: SetupCosts) -> str:
    steps = costs.reached["steps"]
    phrase = (
        f"{format_setting(round(steps.median))} steps" if steps.median is not None else "in fewer than half of its runs"
    )
    seconds = costs.reached.get("seconds")
    if seconds is not None and seconds.median:
        phrase += f", {seconds.median:.2g} s of compute"
    return f"{phrase} ({_runs_phrase(steps)})"


def _runs_phrase(steps: Reach) -> str:
    if steps.reached < steps.runs:
        return f"{steps.reached} of {steps.runs} runs reach it"
    return f"median of {steps.runs} runs" if steps.runs > 1 else "one run"
