"""Searches that fill a disk with checkpoints, and processes in which they are killed at a file operation.

The checkpoints are those of Keras models, without Keras: the same files by the same functions. `python -m
tests.support.filling` imports what a search needs, then forks a process for each order that it reads: one line
of JSON, answered by one line.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import aiotune
from aiotune.errors import FatalRuntimeError
from aiotune.executors.context import RunContext
from aiotune.frameworks.array_file import ArrayFile, write_arrays
from aiotune.frameworks.keras_checkpoint import read_best, write_file, write_json
from aiotune.trial import Trial
from tests.support.programs import obeying

__all__ = ["Filler", "Order", "Saving", "SavingHyperband", "SavingRandom", "filler", "make"]

_CHUNKS = 4  # in which a checkpoint is written
_NEEDED = ("aiotune.search", "aiotune.oracles.hyperband")
# What Python tells of itself (docs.python.org, "Audit events table"), and what a search tells here.
_INSTANTS = frozenset(
    {"os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "test.write", "test.fact"}
)


def save(
    directory: Path, epoch: int, score: float, size: int, observe: Callable[[], object]
) -> None:
    """Keep `size` bytes, all of them the score, as the best epoch so far. observe: called beside the draft."""

    def arrays() -> Iterator[Any]:
        for _ in range(_CHUNKS):
            sys.audit("test.write", str(directory))
            yield np.full(size // _CHUNKS // 8, score)

    record = {"epoch": epoch, "score": score}

    def write(draft: Path) -> None:
        write_arrays(draft, {"record": record}, arrays())
        observe()

    write_file(directory / "best.state", write)
    write_json(directory / "best.json", record)


class Saving:
    """Trains for some epochs, each better than the one before by x, and keeps each, or the last of each run."""

    observe: Any = staticmethod(lambda: None)  # called where a checkpoint takes most

    async def run_trial(
        self, trial: RunContext, size: int, epochs: int = 2, *, keeps_each: bool = True
    ) -> dict[str, float]:
        x: float = trial.hyperparameters.Float("x", 0.1, 1.0)
        budget = trial.budget
        begin = budget.initial_epoch if budget and trial.is_continued else 0
        end = budget.epochs if budget else epochs
        for epoch in range(begin, end):
            if keeps_each or epoch == end - 1:
                save(trial.checkpoint_dir, epoch, x * (epoch + 1), size, self.observe)
            trial.report(epoch, score=x * (epoch + 1))
            await asyncio.sleep(0)
        return {"score": x * (epoch + 1)}

    def load_model(self, trial: Trial) -> float:
        """Return the number that the trial's checkpoint consists of. FatalRuntimeError if it is not whole."""
        directory = Path(self.get_trial_dir(trial.trial_id)) / "repeat-0"  # type: ignore[attr-defined]
        best, file = read_best(directory), ArrayFile.open(directory / "best.state")
        if best is None or file is None:
            raise FatalRuntimeError(f"{directory} has no whole checkpoint")
        values = {float(each) for array in file.arrays() for each in array}
        assert values == {best.score}, (best, values)
        return values.pop()


class SavingRandom(Saving, aiotune.RandomSearch):
    pass


class SavingHyperband(Saving, aiotune.Hyperband):
    pass


def make(kind: str, directory: Path | str, **changes: Any) -> Any:
    """Return a tuner of a kind of this module."""
    options: dict[str, Any] = {
        "objective": aiotune.Objective("score", "max"),
        "seed": 1,
        "directory": directory,
        "project_name": "project",
        "gpus": 0,
        "max_concurrent_trials": 2,
        "keep_checkpoints": "best:1",
    }
    options |= {"max_epochs": 4, "factor": 2} if kind == "SavingHyperband" else {"max_trials": 5}
    return globals()[kind](**options | changes)


# --- killed processes ---


@dataclass(frozen=True, slots=True)
class Order:
    """A session of a search, and before which of its instants to kill it; None: it goes to its end.

    An instant is an operation on files below the project, or a part of a checkpoint that is to be written, or a
    fact that was recorded.
    """

    kind: str
    directory: str
    instant: int | None = None
    size: int = 64_000
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the tuner's options


class Filler:
    """Forks searching processes from one that has imported what they need."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, order: Order) -> int | None:
        """Return how many instants the session had; None if it was killed. AssertionError if it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(order)), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert answer["error"] is None, f"{order}\n{answer['error']}"
        instants: int | None = answer["instants"]
        return instants


@contextmanager
def filler() -> Iterator[Filler]:
    """Hold a process that runs orders."""
    with obeying(__name__) as process:
        yield Filler(process)
        assert process.stdin is not None
        process.stdin.close()  # it ends with its orders


def _obey(order: Order, answers: int) -> None:
    """Run a session, and tell in a pipe how many instants it had."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _INSTANTS or not str(args[0]).startswith(order.directory):
            return
        if count == order.instant:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def tell(*_: object) -> None:
        sys.audit("test.fact", order.directory)

    sys.addaudithook(hook)
    tuner = make(order.kind, order.directory, observers=[tell], **order.changes)
    asyncio.run(tuner.search(order.size, verbose=0))
    os.write(answers, str(count).encode())


def _session(order: Order) -> dict[str, Any]:
    """Fork a process for the order; return its answer when it has ended."""
    answers, end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(answers)
            _obey(order, end)
            status = 0
        except BaseException:
            os.write(end, traceback.format_exc()[-3000:].encode())
        finally:
            os._exit(status)
    os.close(end)
    with os.fdopen(answers) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    is_done = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    return {
        "instants": int(text) if is_done else None,
        "error": None if is_done or was_killed else f"{status}: {text}",
    }


def main() -> None:
    for name in _NEEDED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_session(Order(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
