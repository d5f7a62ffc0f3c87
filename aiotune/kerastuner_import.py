"""A project of KerasTuner's becomes one of aiotune, in a directory of its own.

    report = await import_project(Path("results/mnist"), Path("results/mnist_aiotune"))

Everything that the files say is kept: each trial with its values, every metric at every step, score, best step,
status and message. The weights of the best trials are copied. The source is read only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import anyio

from aiotune.clock import Clock, SystemClock
from aiotune.errors import FatalValueError, StoreUnwritable
from aiotune.events import Event, from_json, to_json
from aiotune.frameworks.keras_checkpoint import Best, adopt_best
from aiotune.history import History
from aiotune.kerastuner_facts import facts_of
from aiotune.kerastuner_files import SourceProject, read_project
from aiotune.kerastuner_objective import objective_of
from aiotune.kerastuner_points import Lineage, lineages_of
from aiotune.layout import Layout
from aiotune.objective import (
    DefaultObjective,
    Direction,
    MultiObjective,
    Objective,
    infer_direction,
)
from aiotune.private_files import is_plain
from aiotune.ranking import best_trials
from aiotune.store.lock import hold_lock
from aiotune.store.sqlite import open_store
from aiotune.trial import trial_id_of
from aiotune.version import __version__

__all__ = ["ImportReport", "checked", "import_project", "report_text"]

_WEIGHTS_CARRIED = 10  # as many as a search keeps by itself


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was imported."""

    source: SourceProject
    layout: Layout
    objective: Objective
    statuses: Mapping[str, int]  # trials by status
    renamed: Mapping[str, str]  # ids of KerasTuner that are not the same number here, to those here
    weights: int  # trials whose weights were copied
    warnings: tuple[str, ...]


async def import_project(
    source: Path,
    target: Path,
    *,
    objective: Sequence[str] = (),
    direction: Direction | None = None,
    booleans: Collection[str] = (),
    keep_checkpoints: int | Literal["all"] = _WEIGHTS_CARRIED,
    clock: Clock | None = None,
) -> ImportReport:
    """Read KerasTuner's project in `source` and write it as a project of aiotune to `target`.

    objective: the metric's name, several for a multi-objective; without it the metric that the scores are of.
    direction: where the files do not tell it. booleans: Choices that the program declares with True and False.
    keep_checkpoints: the weights of so many best trials are copied, and of those that go on.

    FatalValueError where there is nothing to import, the objective cannot be told, or `target` is a project.
    """
    now = (clock or SystemClock()).now()
    wanted = _Wanted(tuple(objective), direction, tuple(booleans))
    report, facts, weights = await anyio.to_thread.run_sync(
        _read, source, target, wanted, keep_checkpoints, now
    )
    await _write(report.layout, facts, weights)
    return replace(report, weights=weights.count, warnings=(*report.warnings, *weights.warnings))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the files do not tell, as the user does."""

    objective: tuple[str, ...]
    direction: Direction | None
    booleans: tuple[str, ...]


def _read(
    source: Path, target: Path, wanted: _Wanted, keep: int | Literal["all"], now: float
) -> tuple[ImportReport, list[Event], _Weights]:
    """Return what is to be written; nothing is, so far."""
    source, target = source.absolute(), target.absolute()
    layout = Layout(target.parent, target.name)
    _require_apart(source, layout)
    project = read_project(source, wanted.booleans)
    objective = objective_of(project, wanted.objective, wanted.direction)
    lineages = lineages_of(project)
    facts = checked(facts_of(project, lineages, objective, now=now, version=__version__), source)
    history = History(facts)
    report = ImportReport(
        source=project,
        layout=layout,
        objective=objective,
        statuses=Counter(trial.status for trial in history.trials.values()),
        renamed=_renamed(lineages),
        weights=0,
        warnings=project.warnings,
    )
    return report, facts, _Weights(layout, objective, history, lineages, keep)


def checked(facts: Sequence[Event], source: Path) -> list[Event]:
    """Return the facts. FatalValueError for one that no store would give back: files may say anything."""
    for fact in facts:
        try:
            from_json(*to_json(fact))
        except (TypeError, ValueError) as error:
            raise FatalValueError(
                f"{source} cannot be imported, for its files say what cannot be ({error!s:.300}): move what "
                "says it away"
            ) from error
    return list(facts)


def _require_apart(source: Path, layout: Layout) -> None:
    if layout.root.resolve().is_relative_to(source.resolve()):
        raise FatalValueError(
            f"{source} is what is imported, and nothing is written there: choose another directory with --to"
        )
    if layout.store.exists():
        raise FatalValueError(
            f"{layout.root} is a project of aiotune already: choose another directory with --to, or delete it"
        )


async def _write(layout: Layout, facts: Sequence[Event], copies: _Weights) -> None:
    """Write the weights, then every fact in one transaction: a project is there as a whole or not at all."""
    with ExitStack() as stack:
        await anyio.to_thread.run_sync(stack.enter_context, hold_lock(layout.lock))
        await anyio.to_thread.run_sync(copies.write)
        async with open_store(layout.store) as store:
            if await store.load():
                raise FatalValueError(f"{layout.root} is a project of aiotune already")
            await store.append(*facts)


def _renamed(lineages: Sequence[Lineage]) -> dict[str, str]:
    return {
        link.trial_id: trial_id_of(number)
        for number, lineage in enumerate(lineages)
        for link in lineage.links
        if not (link.trial_id.isdecimal() and int(link.trial_id) == number)
    }


class _Weights:
    """The checkpoints of the trials that are among the best, or go on."""

    def __init__(
        self,
        layout: Layout,
        objective: Objective,
        history: History,
        lineages: Sequence[Lineage],
        keep: int | Literal["all"],
    ) -> None:
        self._layout = layout
        self._objective = objective
        self._lineages = {trial_id_of(number): each for number, each in enumerate(lineages)}
        trials = list(history.trials.values())
        most = len(trials) if keep == "all" else keep
        kept = [*best_trials(trials, objective, most), *history.open_trials()]
        self._kept = list(dict.fromkeys(trial.trial_id for trial in kept))
        self._best_steps = {trial.trial_id: trial.best_step for trial in trials}
        self.count = 0
        self.warnings: list[str] = []

    def write(self) -> None:
        """Copy them. StoreUnwritable if the disk refuses."""
        missing = []
        for trial_id in self._kept:
            link = self._lineages[trial_id].best(self._objective)
            if not link.is_scored:
                continue
            if not is_plain(link.weights):
                missing.append(trial_id)
                continue
            best = Best(self._best_steps[trial_id] or 0, link.score)
            try:
                adopt_best(
                    self._layout.repeat(trial_id, 0),
                    best,
                    weights=link.weights,
                    build=link.build_config,
                )
            except OSError as error:
                raise StoreUnwritable(
                    f"{link.weights} cannot be copied to {self._layout.root} ({error.strerror}): free some "
                    "space, or choose another directory with --to"
                ) from error
            self.count += 1
        if missing and self.count:
            self.warnings.append(
                f"no checkpoint.weights.h5 of trial {', '.join(missing)}: get_best_models() cannot load them"
            )


def report_text(report: ImportReport) -> Iterator[str]:
    """Yield what an import did, and how to go on."""
    statuses = ", ".join(f"{count} {status}" for status, count in report.statuses.items())
    yield f"Imported {len(report.source.trials)} trials of KerasTuner from {report.source.directory}"
    yield f"to {report.layout.root}: {sum(report.statuses.values())} trials ({statuses})"
    yield f"Objective: {report.objective}"
    yield f"Weights of {report.weights} trials copied" if report.weights else "No weights are there"
    for old, new in report.renamed.items():
        yield f"Trial {old} of KerasTuner is in trial {new} here"
    for warning in report.warnings:
        yield f"Note: {warning}"
    yield f"Go on with: aiotune.{_call(report)}"


def _call(report: ImportReport) -> str:
    """Return the call that makes a tuner which goes on with the search."""
    plan, layout = report.source.plan, report.layout
    arguments = ["build_model", *_objective_argument(report.objective)]
    if plan is not None:
        arguments += [f"max_epochs={plan.max_epochs}", f"factor={plan.factor}"]
    else:
        arguments.append("max_trials=...")
    arguments += [f"directory={str(layout.directory)!r}", f"project_name={layout.project_name!r}"]
    return f"{report.source.proposer or 'RandomSearch'}({', '.join(arguments)})"


def _objective_argument(objective: Objective) -> list[str]:
    match objective:
        case DefaultObjective():
            return []
        case MultiObjective():
            return [f"objective=[{', '.join(map(_written, objective.objectives))}]"]
        case _:
            return [f"objective={_written(objective)}"]


def _written(objective: Objective) -> str:
    """Return it as a program may write it: by its name alone, where that tells the direction."""
    if infer_direction(objective.name) == objective.direction:
        return repr(objective.name)
    return f"aiotune.{objective}"
