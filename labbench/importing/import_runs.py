"""Import of the runs that a reader found: new runs, and new points of known runs."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labbench.configs import flatten
from labbench.errors import InputError, LabbenchError
from labbench.importing.source_run import FoundRun, SourceImage, SourceRun
from labbench.portraits.logged_images import image_path, write_image
from labbench.store.maintenance.external_runs import Import, imported_identities
from labbench.store.maintenance.imported_run import ImportedRun, ImportedSeries, SourceDiffersError
from labbench.store.maintenance.keeper import MaintenanceWriter, open_for_import
from labbench.store.row_checks import OPTIONAL_TIME

_POINTS_PER_TRANSACTION = 100_000
"""Points after which an import commits, so that other processes can write."""

_FOLLOW_SECONDS = 2.0
"""Time between two searches for new points."""


@dataclass
class ImportReport:
    """Result of an import."""

    n_new: int = 0
    """Number of runs that are new in the database."""
    n_grown: int = 0
    """Number of known runs that got points."""
    n_unchanged: int = 0
    """Number of known runs without new points."""
    n_points: int = 0
    """Number of added points."""
    n_images: int = 0
    """Number of added images."""
    problems: dict[str, str] = field(default_factory=dict)
    """Reason by label for runs that are not imported or not updated."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of entries that are not imported, by kind."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Number of known runs by their experiment, if it is not the one that was named for the import."""


def import_runs(
    database: Path, runs: Iterable[FoundRun], source: str, *, experiment: str | None = None, replace: bool = False
) -> ImportReport:
    """Import runs; a run that was imported before gets the points that are new.

    Commits at least once per run. An interrupted import is completed by the next one.

    Args:
        source: Format of the source, such as `tensorboard`.
        experiment: Experiment of new runs; None: the one that the source names.
        replace: Import a run again from the start if its source was shortened or changed, instead of reporting it.

    Raises:
        StoreError: If the database cannot be written.
    """
    report = ImportReport()
    with open_for_import(database) as writer:
        for found in runs:
            try:
                run = found.read()
            except InputError as error:
                report.problems[found.label] = str(error)
                continue
            report.skipped.update(run.skipped)
            try:
                known_in = _import_run(writer, _describe(run, source, experiment), run, report, replace=replace)
                report.elsewhere.update(_other_experiment(known_in, experiment))
            except SourceDiffersError as error:
                report.problems[found.label] = f"the source has changed: {error}; --replace imports the run again"
    return report


def preview(database: Path, runs: Iterable[FoundRun], source: str, *, experiment: str | None = None) -> ImportReport:
    """Read runs without importing them; the points of runs that the database has already are not counted.

    Raises:
        InputError: If the file is not a labbench database.
        StoreError: If it cannot be read.
    """
    report = ImportReport()
    known = imported_identities(database)
    for found in runs:
        try:
            run = found.read()
        except InputError as error:
            report.problems[found.label] = str(error)
            continue
        report.skipped.update(run.skipped)
        if experiments := _known_experiments(_describe(run, source, experiment), known):
            report.n_unchanged += 1
            report.elsewhere.update(_other_experiment(experiments[0], experiment))
            continue
        report.n_new += 1
        report.n_points += sum(len(points.steps) for points in run.series.values())
        report.n_images += len(run.images)
    return report


def _known_experiments(run: ImportedRun, known: Collection[tuple[str, str]]) -> list[str]:
    """Return the experiments in which a run may have been imported, its own first.

    `known` has experiments and identities.
    """
    wanted = {(run.experiment, identity) for identity in run.known_identities} | run.other_identities
    anywhere = {identity for experiment, identity in wanted if experiment is None}
    experiments = {pair[0] for pair in known if pair in wanted or pair[1] in anywhere}
    return sorted(experiments, key=lambda experiment: (experiment != run.experiment, experiment))


def _other_experiment(known_in: str | None, named: str | None) -> list[str]:
    """Return the experiment in which a run is known, unless it is new, or in the one that the user named, if any."""
    return [] if known_in is None or named in (None, known_in) else [known_in]


def follow_runs(
    database: Path,
    find: Callable[[], Iterable[FoundRun]],
    runs: Sequence[FoundRun],
    source: str,
    *,
    experiment: str | None = None,
) -> Iterator[ImportReport]:
    """Import what is written to the sources from now on, and yield a report of each import with points or problems.

    Ends only with an exception, such as KeyboardInterrupt.

    Args:
        find: Search for runs; called every few seconds.
        runs: Runs that were imported already.

    Raises:
        StoreError: If the database cannot be written.
    """
    sizes = {tuple(run.files): _size(run) for run in runs}
    while True:
        time.sleep(_FOLLOW_SECONDS)
        changed = [run for run in find() if sizes.get(tuple(run.files)) != _size(run)]
        sizes |= {tuple(run.files): _size(run) for run in changed}
        report = import_runs(database, changed, source, experiment=experiment)
        if report.n_points or report.n_images or report.problems:
            yield report


def _size(run: FoundRun) -> int:
    """Return the size of the files of a run in bytes; files that have been deleted count 0."""
    return sum(file.stat().st_size for file in run.files if file.exists())


def _storable_time(seconds: float | None) -> float | None:
    """Return a Unix time, or None for one that no calendar has, as damaged sources give."""
    return seconds if OPTIONAL_TIME.contains([seconds]) else None


def _describe(run: SourceRun, source: str, experiment: str | None) -> ImportedRun:
    is_searched_everywhere = experiment is None or run.has_unique_id
    return ImportedRun(
        source=source,
        hint=run.id,
        name=run.name,
        experiment=run.experiment if experiment is None else experiment,
        config=dict(flatten(run.config)),
        status=run.status,
        reason=run.reason,
        started=_storable_time(run.started),
        finished=_storable_time(run.finished),
        tags=run.tags,
        note=run.note,
        is_partial=run.is_partial,
        earlier_hint=run.earlier_id,
        other_hints=[(name if is_searched_everywhere else experiment, other) for name, other in run.other_ids],
        unread_metrics=run.unread_metrics,
    )


def _import_run(
    writer: MaintenanceWriter, described: ImportedRun, run: SourceRun, report: ImportReport, *, replace: bool
) -> str | None:
    """Import a run in one or several transactions; return the experiment of a known one, None for a new one.

    Raises SourceDiffersError, with the run left unchanged.
    """
    with writer.importing() as importer:
        run_id = importer.begin(described, run.series)
        if run_id is None:
            report.n_unchanged += 1
            return described.experiment
        known_in = None if importer.n_new else importer.experiment_of(run_id)
        is_new, missing = bool(importer.n_new), dict(run.series)
        if not is_new:
            try:
                missing = _find_missing(importer, run_id, described, run)
            except SourceDiffersError:
                if not replace:
                    raise
                importer.delete_points(run_id, run.series if run.is_partial else None)
            importer.update(run_id, described)
        importer.set_output(run_id, run.output)
        importer.set_goals(run.goals)
    n_points = _add_points(writer, run_id, missing)
    _add_images(writer, run_id, run.images, report)
    report.n_points += n_points
    report.n_new += is_new
    report.n_grown += not is_new and n_points > 0
    report.n_unchanged += not is_new and n_points == 0
    return known_in


def _find_missing(importer: Import, run_id: int, described: ImportedRun, run: SourceRun) -> dict[str, ImportedSeries]:
    """Return the points that a known run lacks, by metric. Raises SourceDiffersError."""
    if run.is_partial and run.has_last_values:
        return importer.complete(run_id, run.series)
    if run.has_last_values:
        importer.delete_moved(run_id, run.series)
    return importer.compare(run_id, described, run.series)


def _add_images(writer: MaintenanceWriter, run_id: int, images: Sequence[SourceImage], report: ImportReport) -> None:
    """Write the images that the run does not have, and record them as artifacts."""
    if not images:
        return
    with writer.importing() as importer:
        key, hashes = importer.run_key(run_id), importer.artifact_hashes(run_id)
        for image in images:
            stored = hashes.get(image_path(image.metric, image.step))
            if stored == hashlib.sha256(image.content).hexdigest():
                continue
            try:
                artifact = write_image(writer.path, key, image.metric, image.step, image.content)
            except (OSError, LabbenchError) as error:
                report.skipped[f"images ({error})"] += 1
            else:
                importer.add_artifact(run_id, artifact)
                report.n_images += 1


def _add_points(writer: MaintenanceWriter, run_id: int, series: Mapping[str, ImportedSeries]) -> int:
    """Add points in transactions of a bounded size, and return their number."""
    slices = deque(
        (metric, start)
        for metric, points in series.items()
        for start in range(0, len(points.steps), _POINTS_PER_TRANSACTION)
    )
    while slices:
        n_points = 0
        with writer.importing() as importer:
            while slices and n_points < _POINTS_PER_TRANSACTION:
                metric, start = slices.popleft()
                points, stop = series[metric], start + _POINTS_PER_TRANSACTION
                columns = points.steps[start:stop], points.times[start:stop], points.values[start:stop]
                importer.add_missing(run_id, metric, *columns)
                n_points += len(columns[0])
    return sum(len(points.steps) for points in series.values())
