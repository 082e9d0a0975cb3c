"""Search over a grid: trains all configurations up to a rung, compares them there, and trains the best ones on.

The state of a search is in the database alone: values at rungs decide, and they depend on configurations and seeds. So
the same command continues a search that was interrupted, with the same result as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from labbench.files import discard_checkpoints, files_folder
from labbench.grid import new_runs
from labbench.metrics import is_quality
from labbench.records import AT_RUNG, NEW_SEED_TAG, RETRIED, NewRun, RunRecord, Status
from labbench.runner.driver import SearchStage, Stage
from labbench.runner.expanded_grid import ExpandedGrid
from labbench.runner.search.candidates import VALUELESS, Candidate, Ranked, logged_value, rank
from labbench.runner.search.plan import SearchPlan
from labbench.runner.search.rungs import Rung
from labbench.runner.search.tpe import Proposer, Trial
from labbench.store.event_recorder import EventRecorder
from labbench.store.queries.epoch_values import EpochValue
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.text import format_count, format_duration, ordinal

QueueFunction = Callable[[Sequence[NewRun]], list[RunRecord]]
"""Queues the missing ones among runs, and returns the records of all."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """Configuration that reached the end of a search."""

    run: RunRecord
    """Its first run in the grid."""
    value: float
    """Mean over its new seeds, or over its seeds in the grid if the search has no new ones."""
    seeds: int
    """Number of seeds behind the value."""


@dataclass
class SearchResult:
    """Results of a search so far, and the runs that it has trained."""

    plan: SearchPlan
    finalists: list[Finalist] = field(default_factory=list)
    """Best first; empty before the end of the search."""
    runs: list[RunRecord] = field(default_factory=list)
    """All runs of the search, as they were when they were queued."""
    pruned: int = 0
    """Number of runs that this call has pruned."""
    spent: float = 0.0
    """Epochs of all runs of the search."""
    note: str | None = "interrupted"
    """Reason why the search has not ended, None if it has."""


class GridSearch:
    """Search over a grid, which asks the driver for stages of training and decides between them."""

    def __init__(
        self,
        plan: SearchPlan,
        expanded: ExpandedGrid,
        recorder: EventRecorder,
        queue: QueueFunction,
        statuses: Collection[Status],
    ) -> None:
        """`statuses` are the statuses of recorded runs that are trained; `queue` records the runs with new seeds."""
        self.plan, self.search, self.result = plan, plan.search, SearchResult(plan)
        self._expanded, self._recorder, self._queue = expanded, recorder, queue
        self._statuses = {*statuses, "pruned"}
        self._records: dict[int, list[RunRecord]] = {}
        """Runs of each candidate, by its index."""
        self._new_records: dict[int, list[RunRecord]] = {}
        self._trials: list[Trial] = []
        """Results of the ended brackets, in the order of the search."""
        self._began, self._has_trained = time.monotonic(), False

    def add_records(self, candidates: Iterable[Candidate], records: Sequence[RunRecord]) -> None:
        """Set the records of all runs of candidates, in order."""
        iterator = iter(records)
        for candidate in candidates:
            self._records[candidate.index] = [next(iterator) for _ in candidate.runs]
        self.result.runs += records

    def stages(self) -> Iterator[Stage]:
        """Yield what to train next, and compare the runs after each stage.

        Raises:
            GridError: All runs have diverged, or the metric of the search was not measured.
            StoreError: The database cannot be read.
        """
        finishers: list[Ranked] = []
        for number in range(len(self.plan.brackets)):
            survivors = yield from self._run_bracket(number)
            if survivors is None:
                return
            finishers += survivors
        yield from self._train_retried()
        ranked = self._rank([row.candidate for row in finishers], self._records, self.plan.epochs)
        if self.plan.new_seeds:
            yield from self._judge_finalists(ranked[: self.plan.finalists])
        else:
            self._report([row for row in ranked if math.isfinite(row.value)], 0)

    def _population(self, number: int) -> list[Candidate] | None:
        """Return the configurations of a bracket, proposed and queued if they are not planned.

        Returns None if they cannot be queued.
        """
        if self.plan.populations:
            return list(self.plan.populations[number])
        grid, count = self._expanded.grid, self.plan.brackets[number][0].candidates
        proposer = Proposer(self.plan.candidates, self.search.goal, self.search.seed, frozenset(grid.implied_keys))
        population = proposer.propose(self._trials, count, number)
        runs = [run for candidate in population for run in candidate.runs]
        records = self._queue(runs)
        if len(records) < len(runs):
            return None
        self.add_records(population, records)
        return population

    def _run_bracket(self, number: int) -> Generator[Stage, None, list[Ranked] | None]:
        """Train the configurations of a bracket from rung to rung; return the last ones, None before the end."""
        bracket = self.plan.brackets[number]
        last: dict[int, Trial] = {}
        if self._is_time_over(self.plan.rung_label(number, 0)) or (population := self._population(number)) is None:
            return None
        initial, ranked = population, []
        for index, rung in enumerate(bracket):
            label = self.plan.rung_label(number, index)
            if self._is_time_over(label):
                return None
            runs = [run for candidate in population for run in self._records[candidate.index]]
            title = label if self.plan.is_of_commands else f"{label} (epoch {rung.epochs})"
            if not (yield from self._train(runs, None if rung is bracket[-1] else rung.epochs, title)):
                return None
            ranked = self._rank(population, self._records, rung.epochs)
            self._require_values(ranked, rung, label, is_first=number == 0)
            last |= {
                row.candidate.index: Trial(row.candidate, row.value, rung.epochs, rung is bracket[-1]) for row in ranked
            }
            if rung is bracket[-1]:
                break
            survivors = [row for row in ranked[: rung.survivors] if math.isfinite(row.value)]
            if not self._prune(ranked[len(survivors) :], label, rank_before=len(survivors)):
                return None
            population = sorted((row.candidate for row in survivors), key=lambda candidate: candidate.index)
        self._trials += [last[candidate.index] for candidate in initial]
        return ranked

    def _is_time_over(self, label: str) -> bool:
        """Return True if the time limit passed in an earlier stage of this call, and note it."""
        limit = self.search.time_limit
        if limit is None or not self._has_trained or time.monotonic() - self._began <= limit:
            return False
        self.result.note = f"time_limit of {format_duration(limit)} reached before {label}"
        return True

    def _train(self, runs: Sequence[RunRecord], epochs: int | None, title: str) -> Generator[Stage, None, bool]:
        """Train the runs up to a rung, or to the end; return True if none of them is left to train."""
        tried: set[tuple[str, int, Status]] = set()
        while True:
            current = self._read(runs)
            waiting = self._waiting(current, epochs)
            due = [run for run in waiting if (run.key, run.boundary, run.status) not in tried]
            if not due:
                break
            tried |= {(run.key, run.boundary, run.status) for run in due}
            self._has_trained = True
            yield Stage(due, self._statuses, epochs, self._describe_stage(title, len(runs), len(due)))
        self.result.spent = self._cost_so_far()
        if running := sum(run.status == "running" for run in current):
            self.result.note = f"{format_count(running, 'run')} of this rung are training in another process"
        return not running and all(run.status == "failed" for run in waiting)

    def _describe_stage(self, title: str, runs: int, due: int) -> SearchStage:
        return SearchStage(title, runs, due, self._cost_so_far(), self.plan.cost, self.plan.full_cost, self.plan.unit)

    def _waiting(self, runs: Sequence[RunRecord], epochs: int | None) -> list[RunRecord]:
        """Return the runs that have not reached a rung or, without `epochs`, their end."""
        values = self._values(runs, epochs) if epochs else {}
        waiting = []
        for run in runs:
            has_reached = run.key in values and values[run.key].epoch == epochs
            has_checkpoint = run.status == "pruned" or (run.status == "queued" and run.reason in (AT_RUNG, RETRIED))
            if run.status in self._statuses and not (has_reached and has_checkpoint):
                waiting.append(run)
        return waiting

    def _train_retried(self) -> Generator[Stage, None, None]:
        """Train the pruned runs to their end that a user has queued again."""
        retried = [run for run in self._read(self.result.runs) if run.status == "queued" and run.reason == RETRIED]
        if retried:
            count = len(retried)
            yield Stage(retried, self._statuses, None, self._describe_stage("retried runs", count, count))

    def _judge_finalists(self, ranked: Sequence[Ranked]) -> Generator[Stage, None, None]:
        """Train the best configurations with new seeds, and choose the winner by these alone."""
        finalists = [row.candidate for row in ranked if math.isfinite(row.value)]
        records = self._queue(self._new_runs(finalists))
        count = len(self.plan.new_seeds)
        for index, candidate in enumerate(finalists):
            self._new_records[candidate.index] = records[index * count : (index + 1) * count]
        self.result.runs += records
        keys = [run.key for run in records]

        def tag(writer: Writer) -> bool:
            writer.tag(keys, [NEW_SEED_TAG])
            return True

        if not self._recorder.perform(tag):
            return
        title = f"{format_count(count, 'new seed')} of {format_count(len(finalists), 'finalist')}"
        if (yield from self._train(records, None, title)):
            judged = self._rank(finalists, self._new_records, self.plan.epochs)
            self._report([row for row in judged if math.isfinite(row.value)], count)

    def _new_runs(self, candidates: Sequence[Candidate]) -> list[NewRun]:
        """Return the runs of configurations with new seeds, named like the runs of the grid."""
        configs = [{**candidate.config, "seed": seed} for candidate in candidates for seed in self.plan.new_seeds]
        grid, params, code = self._expanded.grid, self._expanded.params, self._expanded.code
        files = files_folder(self._recorder.path)
        grid_configs = [run.config for run in self._expanded.runs]
        return new_runs(grid, [*grid_configs, *configs], params, files=files, code=code)[len(grid_configs) :]

    def _report(self, ranked: Sequence[Ranked], seeds: int) -> None:
        """Set the finalists of the result, which end the search."""
        self.result.note = None
        self.result.finalists = [
            Finalist(self._records[row.candidate.index][0], row.value, seeds or len(row.candidate.runs))
            for row in ranked
        ]

    def _rank(
        self, candidates: Sequence[Candidate], records: Mapping[int, Sequence[RunRecord]], epochs: int
    ) -> list[Ranked]:
        """Rank candidates by the runs in `records`, by index, up to the end of an epoch."""
        current = {run.key: run for run in self._read([run for row in candidates for run in records[row.index]])}
        runs = {row.index: [current[run.key] for run in records[row.index] if run.key in current] for row in candidates}
        return rank(candidates, runs, self._best_values(list(current.values()), epochs), self.search.goal)

    def _require_values(self, ranked: Sequence[Ranked], rung: Rung, label: str, *, is_first: bool) -> None:
        """Raise GridError if no configuration of the first bracket has a value at a rung."""
        if not is_first or any(math.isfinite(row.value) for row in ranked):
            return
        runs = self._read([run for row in ranked for run in self._records[row.candidate.index]])
        measured = list(dict.fromkeys(metric for run in runs for metric in run.summary if is_quality(metric)))
        source, metric, is_command = self._expanded.grid.source, self.search.metric, self.plan.is_of_commands
        if all(run.status in VALUELESS for run in runs):
            count = format_count(len(runs), "run")
            moment = "" if is_command else f" before {label} (epoch {rung.epochs})"
            raise source.error(f"all {count} diverged or failed{moment}: none can be compared", ("search",), at="key")
        moment = "" if is_command else f" at the end of epoch {rung.epochs}"
        message = f"`{metric}` has no finite value{moment} in any run"
        if metric not in measured:
            names = f"use one of {', '.join(measured)}" if measured else "log it with labbench.start() in the script"
            message = f"`{metric}` is not {'logged' if is_command else 'measured at the end of an epoch'}; {names}"
        raise source.error(message, ("search", "metric"))

    def _prune(self, losers: Sequence[Ranked], label: str, *, rank_before: int) -> bool:
        """Prune the runs of configurations that are not trained on; return False if that cannot be recorded."""
        total = rank_before + len(losers)
        reasons = {
            run.key: f"{label}, {ordinal(rank_before + position)} of {total}"
            for position, row in enumerate(losers, 1)
            for run in self._records[row.candidate.index]
        }
        keep = self.search.keep_pruned != "none"
        pruned = self._recorder.perform(lambda writer: writer.prune(reasons, keep_checkpoints=keep))
        if pruned is None:
            return False
        self.result.pruned += len(pruned)
        for key in () if keep else pruned:
            discard_checkpoints(files_folder(self._recorder.path), key)
        return True

    def _read(self, runs: Sequence[RunRecord]) -> list[RunRecord]:
        """Return the current records of runs, with the configs of the grid."""
        configs = {run.key: run.config for run in runs}
        with Reader(self._recorder.path) as reader:
            return [replace(run, config=configs[run.key]) for run in reader.by_keys(list(configs))]

    def _values(self, runs: Sequence[RunRecord], epochs: int) -> dict[str, EpochValue]:
        with Reader(self._recorder.path) as reader:
            return reader.epoch_values([run.key for run in runs], self.search.metric, epochs)

    def _best_values(self, runs: Sequence[RunRecord], epochs: int) -> dict[str, float]:
        """Return the best value of each run up to the end of an epoch; of a script, of all values."""
        metric, goal = self.search.metric, self.search.goal
        if self.plan.is_of_commands:
            return {run.key: logged_value(run, metric, goal) for run in runs}
        return {key: value.best(goal) for key, value in self._values(runs, epochs).items()}

    def _cost_so_far(self) -> float:
        """Return the epochs that all runs of the search have trained, or the number of scripts that have ended."""
        runs = self._read(self.result.runs)
        if self.plan.is_of_commands:
            return sum(run.status not in ("queued", "running", "lost") for run in runs)
        return sum(run.summary["epoch"].last for run in runs if "epoch" in run.summary)
