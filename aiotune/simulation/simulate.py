"""A search on a virtual clock: which scheduler suits N devices shows in seconds, without training.

The scheduler, runner, recorder, history, oracle and pruner are those of a real search. Made up are the time,
the devices, and the runs, which follow learning curves. It costs no virtual time to ask the oracle or a pruner,
to write facts, and to stop a run.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.events import Event, SearchOpened, SpaceGrew
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.oracles.base import Oracle
from aiotune.plan import Plan
from aiotune.pruners.base import Pruner
from aiotune.recorder import Recorder
from aiotune.resources import Limits
from aiotune.scheduler import Scheduler
from aiotune.settlement import Policy
from aiotune.simulation.executor import Curves, SimulatedExecutor
from aiotune.simulation.pool import SimulatedPool
from aiotune.simulation.recorded import RecordedCurves
from aiotune.simulation.result import Progress, SimulationResult, spans_of
from aiotune.simulation.store import UnwrittenStore
from aiotune.simulation.subject import Simulable, copied, subject_of
from aiotune.simulation.virtual_time import VirtualClock, run_virtually
from aiotune.space import Space
from aiotune.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiotune.simulation.recorded import HasTrials, Point
    from aiotune.trial import Trial

__all__ = ["simulate"]

_NOWHERE = Layout(Path("simulation"), "none")  # a simulation writes no file


def simulate(
    search: Simulable | Oracle,
    curves: Curves | HasTrials | Iterable[Trial] | Iterable[tuple[Point, Any]] | str | Path,
    devices: int = 8,
    seed: int = 0,
    *,
    epochs: int | None = None,
    limits: Limits | None = None,
    pruner: Pruner | None = None,
) -> SimulationResult:
    """Return what a search would do on so many devices, if its points learnt as `curves` say.

        def curves(hp):
            rate = hp.Float("learning_rate", 1e-4, 1e-1, sampling="log")
            final = 0.95 - 0.1 * abs(math.log10(rate) + 2.5)
            return aiotune.Curve(lambda epoch: {"val_accuracy": final * (1 - 0.6 ** (epoch + 1))}, seconds=30)

        print(aiotune.simulate(aiotune.Hyperband(build, "val_accuracy", max_epochs=27), curves, devices=8))

    search: a tuner or an oracle; it is copied, and begins anew. curves: a function of the hyperparameters that
    returns a `Curve`; a second parameter, if any, is a `random.Random` of the run's own, for noise. Or what was
    recorded: a tuner, the result of a search, a project's directory, a `RecordedCurves`. seed: all chance
    derives from it; the same one gives the same result. epochs: how long a trial trains that has no budget.
    limits, pruner: in place of the tuner's.

    It blocks and writes nothing, and may be called anywhere, in a notebook and in async code, too. Errors are
    those that the search would raise.
    """
    _check_counts(devices=devices, epochs=epochs)
    subject = subject_of(search)
    oracle = copied(subject.oracle)
    oracle.seed = seed
    followed = curves if callable(curves) else RecordedCurves(curves)
    executor = SimulatedExecutor(followed, epochs)
    plan = Plan(
        layout=_NOWHERE,
        policy=Policy(
            repeats=subject.repeats,
            retries=oracle.max_retries_per_trial,
            folds=subject.folds,
            bounds=oracle.bounds,
        ),
        # Curves have epochs, no batches: what goes on looks as silent as what hangs.
        limits=replace(limits or subject.limits, stall_timeout=None),
        resources=subject.resources,
        pruner=pruner or subject.pruner,
        has_discovery=True,
        is_simulated=True,
    )
    if plan.pruner is not None:
        plan.pruner.check(oracle.objective, subject.repeats)
    space = getattr(followed, "space", Space())
    return run_virtually(partial(_search, oracle, executor, plan, devices, space))


async def _search(
    oracle: Oracle, executor: SimulatedExecutor, plan: Plan, devices: int, space: Space
) -> SimulationResult:
    history, clock, progress = History(), VirtualClock(), Progress(oracle.objective)
    oracle.follow(lambda: history)
    recorder = Recorder(UnwrittenStore(), history, [progress])
    await recorder.record(*_opening(oracle, space))
    scheduler = Scheduler(
        oracle=oracle,
        recorder=recorder,
        pool=SimulatedPool(devices),
        executor=executor,
        plan=plan,
        clock=clock,
    )
    end = await scheduler.run()
    trials = tuple(history.trials.values())
    return SimulationResult(
        end.reason,
        end.message,
        trials,
        oracle.objective,
        devices,
        end.at,
        tuple(progress.gains),
        spans_of(trials),
    )


def _opening(oracle: Oracle, recorded: Space) -> list[Event]:
    """Return the facts that begin the search: what is known of the space before the first trial."""
    given = Space(oracle.hyperparameters.space).grow(recorded)
    opened = SearchOpened(
        0.0, oracle.objective.get_config(), oracle.chance, type(oracle).__name__, __version__
    )
    return [opened, SpaceGrew(0.0, None, tuple(given))] if len(given) else [opened]


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise FatalTypeError(f"simulate({name}={value!r}): a whole number is needed")
        if value < 1:
            raise FatalValueError(f"simulate({name}={value}): it must be 1 or more")
