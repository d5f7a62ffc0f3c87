"""Where a training begins: anew, or from what an earlier run of the trial left in the checkpoint directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiotune.executors.context import RunContext
from aiotune.frameworks.array_file import ArrayFile
from aiotune.frameworks.keras_checkpoint import (
    Best,
    begin_budget,
    forget_best,
    forget_training,
    read_best,
)
from aiotune.layout import LAST_STATE

__all__ = ["LastState", "Start", "starts"]


@dataclass(frozen=True, slots=True)
class LastState:
    """A training at the end of an epoch, as a run left it.

    is_over: the program itself had ended the training there, such as by EarlyStopping. is_foreign: another
    trial's.
    """

    file: ArrayFile
    epoch: int
    is_over: bool
    is_foreign: bool

    @classmethod
    def read(cls, directory: Path, trial_id: str) -> LastState | None:
        """Return the state in a directory, for a run of the trial. None if there is none."""
        file = ArrayFile.open(directory / LAST_STATE)
        if file is None:
            return None
        match file.record.get("record"):
            case {"trial": str(trial), "epoch": int(epoch), "is_over": bool(is_over)}:
                is_foreign = trial != trial_id
                return cls(file, epoch, is_over and not is_foreign, is_foreign)
            case _:
                return None

    @property
    def record(self) -> dict[str, Any]:
        """What was kept beside the model: epochs and logs, callbacks, why it is not exact."""
        record: dict[str, Any] = self.file.record["record"]
        return record


@dataclass(frozen=True, slots=True)
class Start:
    """A place to begin a training at.

    epoch: the first to be trained. state: what to go on from; without one, `best` if `loads_best`. best: the
    best epoch so far, whose weights the directory has. must_hold: a program that begins at another epoch is
    wrong; else it may not know how to go on, and is begun anew.
    """

    epoch: int = 0
    state: LastState | None = None
    best: Best | None = None
    loads_best: bool = False
    must_hold: bool = False


def starts(run: RunContext, *, may_go_on: bool) -> Iterator[Start]:
    """Yield where the run is to begin, and next where it may begin if it cannot begin there.

    may_go_on: whether it can go on where no budget says so: after a crash.
    """
    directory, budget = run.checkpoint_dir, run.budget
    if budget is not None and budget.share is not None and budget.rung:
        # It trains anew, and what a smaller share reached, no epoch of this training, stays until it is beaten.
        best = begin_budget(directory, budget.epochs)
        yield Start(best=None if best is None else Best(-1, best.score))
        return
    begin = 0 if budget is None or budget.share is not None else budget.initial_epoch
    if run.is_continued and (begin > 0 or may_go_on):
        yield from _continued(run, begin)
    if begin > 0:
        run.note(
            f"trial {run.trial_id} cannot go on from epoch {begin}, for its checkpoints are gone: it is "
            "trained from epoch 0"
        )
    forget_best(directory)
    forget_training(directory)
    yield Start()


def _continued(run: RunContext, begin: int) -> Iterator[Start]:
    """Yield the starts of a run that goes on: where the other was cut off, then where its budget begins."""
    directory = run.checkpoint_dir
    state = LastState.read(directory, run.trial_id)
    if state is not None and not state.is_foreign and state.epoch >= begin:
        yield Start(state.epoch + 1, state, read_best(directory))
    if begin == 0:
        return
    best = begin_budget(directory, begin)
    state = LastState.read(directory, run.trial_id)
    if state is not None and state.is_foreign:
        forget_best(directory)  # reached with other hyperparameters
        yield Start(begin, state, must_hold=True)
    elif state is not None:
        yield Start(state.epoch + 1, state, best, must_hold=state.epoch + 1 == begin)
    if best is not None:
        run.note(
            "trials go on from the weights of their best epoch, which is not exact: the state of the last one "
            "is gone, or does not fit. It is kept where the program calls model.fit once, with the epochs that "
            "it is given"
        )
        yield Start(begin, None, best, loads_best=True, must_hold=True)
