"""Facts as a search would record them, for tests of what keeps and folds them."""

from __future__ import annotations

from aiotune.checkpoints import Checkpoint
from aiotune.events import (
    CheckpointsDropped,
    CheckpointsKept,
    DeviceChanged,
    EndReason,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    SearchOpened,
    SpaceGrew,
    StopRequested,
    TrialCreated,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.space import Boolean, Choice, Fixed, Float, HyperParameter, Int
from aiotune.trial import Budget, FailureKind, RunState, StopCause, TrialState, Usage

UNITS = Int("units", 32, 128, step=32)
RATE = Float("rate", 1e-4, 1e-1, sampling="log")
SPACE: tuple[HyperParameter, ...] = (
    UNITS,
    RATE,
    Choice("activation", ["relu", "tanh"]),
    Boolean("bias"),
    Fixed("layers", 2),
)

USAGE = Usage(gpu_seconds=0.025, peak_bytes=2**30, energy_joules=7.5, is_estimated=True)


def opened(at: float = 1.0) -> SearchOpened:
    return SearchOpened(
        at, {"name": "val_loss", "direction": "min"}, seed=7, oracle="RandomSearch", version="1.0"
    )


def created(number: int = 0, at: float = 2.0) -> TrialCreated:
    return TrialCreated(
        at,
        f"{number:04d}",
        number=number,
        stream=number,
        values={"units": 32 * (1 + number % 4), "rate": 0.01},
        asked_after=1,
    )


def started(number: int = 0, run: int = 0, at: float = 3.0) -> RunStarted:
    return RunStarted(
        at,
        f"{number:04d}",
        run=run,
        repeat=0,
        attempt=run,
        devices=("GPU-1",),
        log=f"/tmp/trial_{number:04d}/run-{run}.log",
    )


def reported(number: int = 0, step: int = 0, run: int = 0, loss: float = 0.5) -> Reported:
    metrics = {"loss": loss, "val_loss": 2 * loss}
    return Reported(4.0 + step, f"{number:04d}", run=run, step=step, metrics=metrics)


def run_ended(
    number: int = 0, run: int = 0, state: RunState = RunState.FINISHED, at: float = 8.0
) -> RunEnded:
    return RunEnded(at, f"{number:04d}", run, state, {"val_loss": 0.25}, best_step=1)


def ended(
    number: int = 0, status: TrialState = TrialState.COMPLETED, score: float | None = 0.25
) -> TrialEnded:
    return TrialEnded(9.0, f"{number:04d}", status, score, best_step=1, metrics={"val_loss": 0.25})


def whole_trial(number: int = 0) -> list[Event]:
    """Return the facts of a trial of one run that reported twice."""
    return [
        created(number),
        started(number),
        reported(number, step=0),
        reported(number, step=1, loss=0.125),
        run_ended(number),
        ended(number),
    ]


def every_kind() -> list[Event]:
    """Return a search in which each kind of event occurs, with each of its optional fields used."""
    return [
        opened(),
        SpaceGrew(1.5, None, SPACE, redeclared=("units",)),
        TrialCreated(2.0, "0000", 0, 3, {"units": 32, "bias": True}, 1, Budget(3), parent="none"),
        started(),
        TrialMet(3.5, "0000", SPACE[:2], {"units": 32, "rate": 0.01}, is_complete=True),
        reported(),
        StopRequested(5.0, "0000", 0, StopCause.RULE),
        run_ended(state=RunState.STOPPED),
        TrialPaused(8.5, "0000", score=0.25, best_step=1),
        TrialPromoted(8.6, "0000", Budget(9, initial_epoch=3)),
        RunStarted(
            8.7, "0000", 1, 0, 0, ("GPU-2",), None, Budget(9, initial_epoch=3), 0, 2**31, 0.25
        ),
        CheckpointsKept(8.71, "0000", (Checkpoint(0, "best", 10, 1), Checkpoint(0, "last", 20, 1))),
        CheckpointsDropped(8.72, "0000", (Checkpoint(0, "before-3", 20),), "max_disk"),
        DeviceChanged(8.75, "GPU-1", "Xid 79"),
        DeviceChanged(8.76, "GPU-1"),
        RunEnded(
            8.8, "0000", 1, RunState.FAILED, {}, None, FailureKind.CRASH, False, "SIGKILL", USAGE
        ),
        TrialEnded(9.0, "0000", TrialState.FAILED, None, None, None, FailureKind.CRASH, "SIGKILL"),
        SearchEnded(10.0, EndReason.STOPPED, "asked for"),
    ]
