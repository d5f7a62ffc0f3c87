"""What a display of a search says: its facts folded into lines of text, and into a view of the moment.

No terminal here and no thread; the only time is the clock that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from aiotune.clock import Clock
from aiotune.conclusion import LOG_MARK
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
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.printable import one_line
from aiotune.ranking import best_trials
from aiotune.settlement import is_excused
from aiotune.trial import RunState, Trial, TrialState
from aiotune.usage import total_usage, usage_text

__all__ = ["Board", "Row", "Unit", "View", "number_text", "time_text", "values_text"]

Unit = Literal["epoch", "step"]

_LONGEST_VALUE = 20  # characters of one value
_LINE_VALUES = 160  # characters of hyperparameters in a line, in a row of the table
_ROW_VALUES = 60

_SCORED = (TrialState.COMPLETED, TrialState.PRUNED, TrialState.PAUSED)

_ORACLE_PREFIX = "tuner/"  # how the oracle marks its own values


@dataclass(frozen=True, slots=True)
class Row:
    """One run in progress."""

    name: str  # the trial's id, and the run's number from the second one on
    device: str
    values: str
    step: str = ""
    score: float | None = None  # the last value of the objective


@dataclass(frozen=True, slots=True)
class View:
    """The search at one moment."""

    objective: Objective
    done: int  # trials that are over, with those of earlier sessions
    most: int | None  # max_trials
    failed: int
    elapsed_seconds: float
    left_seconds: float | None  # an estimate, once there is something to go by
    starting: str | None  # what the search does before its first trial
    rows: tuple[Row, ...]
    best: str | None


class Board:
    """Takes each fact and returns the lines that it is worth; `view()` shows the rest."""

    def __init__(
        self,
        objective: Objective,
        max_trials: int | None,
        clock: Clock,
        *,
        starting: str | None = None,
        output: str | None = None,
        unit: Unit = "epoch",
    ) -> None:
        self._objective = objective
        self._most = max_trials
        self._clock = clock
        self._starting = starting
        self._output = output
        self._unit = unit
        self._rows: dict[tuple[str, int], Row] = {}
        self._done = 0
        self._done_before = 0  # by earlier sessions
        self._failed = 0
        self._best: Trial | None = None
        self._paused: set[str] = set()  # trials whose line is out, if they end as they stand
        self._has_told_failure = False
        self._has_ended = False
        self._opened_at = clock.monotonic()
        self._first_run_at: float | None = None

    def tell(self, event: Event, history: History) -> list[str]:
        """Take in the next fact, which `history` has already, and return the lines to print."""
        match event:
            case SearchOpened():
                return list(self._open(history))
            case SpaceGrew():
                return list(self._space_grew(event))
            case RunStarted():
                self._start_run(event, history)
            case TrialMet():
                self._meet(event)
            case Reported():
                self._report(event)
            case RunEnded():
                return list(self._end_run(event, history))
            case TrialPaused():
                return list(self._pause_trial(history.trial(event.trial_id)))
            case TrialPromoted():
                self._paused.discard(event.trial_id)
            case TrialEnded():
                return list(self._end_trial(history.trial(event.trial_id)))
            case SearchEnded():
                return list(self._end(event, history))
            case DeviceChanged():
                return [_device_line(event)]
            case TrialCreated() | StopRequested() | CheckpointsKept() | CheckpointsDropped():
                pass
            case _:
                assert_never(event)
        return []

    def close(self) -> list[str]:
        """Return the lines that are due if no further fact comes."""
        if self._has_ended:
            return []
        return [f"search interrupted after {self._progress()}; search() goes on from here"]

    def view(self) -> View:
        """Return what there is to see now."""
        return View(
            objective=self._objective,
            done=self._done,
            most=self._most,
            failed=self._failed,
            elapsed_seconds=self._clock.monotonic() - self._opened_at,
            left_seconds=self._left_seconds(),
            starting=self._starting,
            rows=tuple(self._rows.values()),
            best=None if self._best is None else self._best_text(self._best),
        )

    # --- facts ---

    def _open(self, history: History) -> Iterator[str]:
        over = [t for t in history.ended_trials() if t.state is not TrialState.DUPLICATE]
        self._done = self._done_before = len(over)
        self._failed = sum(trial.state is TrialState.FAILED for trial in over)
        self._best = next(iter(best_trials(history.trials.values(), self._objective, 1)), None)
        paused = (t for t in history.open_trials() if t.state is TrialState.PAUSED)
        self._paused = {trial.trial_id for trial in paused}
        most = "" if self._most is None else f", {self._most} trials"
        before = f"; {self._done} done before" if self._done else ""
        yield f"search for {self._objective.name} ({self._objective.direction}){most}{before}"
        if self._most is not None and self._done >= self._most:
            self._starting = None
            return  # nothing will start
        if self._output is not None:
            yield f"output of the trials: {self._output}"
        if self._starting is not None:
            yield f"starting: {self._starting} ..."

    def _space_grew(self, event: SpaceGrew) -> Iterator[str]:
        for name in event.redeclared:
            yield f"note: {name!r} is declared with more than one range; the first one holds"

    def _begin(self) -> None:
        """User code has run: imports are over, and the pace counts from here."""
        if self._starting is not None:
            self._starting = None
            self._first_run_at = self._clock.monotonic()

    def _start_run(self, event: RunStarted, history: History) -> None:
        if self._first_run_at is None:
            self._first_run_at = self._clock.monotonic()
        values = history.trial(event.trial_id).values
        name = event.trial_id if event.run == 0 else f"{event.trial_id} run {event.run}"
        self._rows[event.trial_id, event.run] = Row(
            name, ", ".join(map(_device_text, event.devices)), values_text(values, _ROW_VALUES)
        )

    def _meet(self, event: TrialMet) -> None:
        self._begin()
        for key, row in self._rows.items():
            if key[0] == event.trial_id:
                self._rows[key] = replace(row, values=values_text(event.values, _ROW_VALUES))

    def _report(self, event: Reported) -> None:
        self._begin()
        key = event.trial_id, event.run
        row = self._rows.get(key)
        if row is None:
            return
        score = row.score
        if self._objective.has_value(event.metrics):
            score = self._objective.get_value(event.metrics)
        self._rows[key] = replace(row, step=self._step_text(event.step), score=score)

    def _end_run(self, event: RunEnded, history: History) -> Iterator[str]:
        self._begin()
        self._rows.pop((event.trial_id, event.run), None)
        if event.state is not RunState.FAILED:
            return
        trial = history.trial(event.trial_id)
        if is_excused(trial, trial.runs[event.run]):
            yield f"trial {event.trial_id} ran out of memory on a part of a GPU: tried again on a whole one"
            return
        if self._has_told_failure:
            return
        self._has_told_failure = True
        yield f"trial {event.trial_id} failed ({event.failure or 'no reason given'}):"
        yield event.message or "no message"

    def _end_trial(self, trial: Trial) -> Iterator[str]:
        if trial.state is not TrialState.DUPLICATE:
            self._done += 1
        self._failed += trial.state is TrialState.FAILED
        if trial.trial_id not in self._paused:  # nothing new since
            yield "  ".join(filter(None, self._trial_parts(trial)))

    def _pause_trial(self, trial: Trial) -> Iterator[str]:
        self._paused.add(trial.trial_id)
        yield "  ".join(filter(None, self._trial_parts(trial)))

    def _trial_parts(self, trial: Trial) -> Iterator[str]:
        yield f"trial {trial.trial_id}"
        if trial.state is not TrialState.COMPLETED:
            yield trial.status
        if trial.score is not None and trial.state in _SCORED:
            yield self._score_text(trial)
            yield "" if trial.best_step is None else self._step_text(trial.best_step)
        elif trial.message:
            yield from _reason_parts(trial.message)
        yield _seconds_text(trial)
        yield values_text(trial.values, _LINE_VALUES)

    def _score_text(self, trial: Trial) -> str:
        """Return the score beside the best one, which this trial's becomes if it is better."""
        score, best = _score(trial), self._best
        text = f"{self._objective.name} {_score_text(trial)}"
        if best is None or self._objective.better_than(score, _score(best)):
            self._best = trial
            return f"{text} (best)"
        return f"{text} (best {number_text(_score(best))})"

    def _end(self, event: SearchEnded, history: History) -> Iterator[str]:
        self._has_ended = True
        yield f"search ended: {_end_text(event)}; {self._progress()}"
        if self._best is not None:
            yield f"best: {self._best_text(self._best)}"
        usage = total_usage(trial.usage for trial in history.trials.values())
        if usage is not None:
            yield f"GPUs: {usage_text(usage)}"

    # --- texts ---

    def _progress(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        elapsed = time_text(self._clock.monotonic() - self._opened_at)
        trials = "1 trial" if self._done == 1 else f"{self._done} trials"
        return f"{trials} done{failed}, {elapsed}"

    def _best_text(self, trial: Trial) -> str:
        score = f"{self._objective.name} {_score_text(trial)}"
        return (
            f"{score}  trial {trial.trial_id}  {values_text(trial.values, _LINE_VALUES)}".rstrip()
        )

    def _step_text(self, step: int) -> str:
        """Epochs are counted from 1, as Keras prints them; a step is shown as it was reported."""
        return f"{self._unit} {step + 1 if self._unit == 'epoch' else step}"

    def _left_seconds(self) -> float | None:
        """Return the time for the trials that are left at this session's pace so far."""
        done = self._done - self._done_before
        if self._most is None or self._first_run_at is None or done < 1:
            return None
        pace = (self._clock.monotonic() - self._first_run_at) / done
        return max(0, self._most - self._done) * pace


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score


def _score_text(trial: Trial) -> str:
    """Return the score, with its standard error where it is a mean over several runs."""
    text, error = number_text(_score(trial)), trial.standard_error
    return text if error is None else f"{text} ± {number_text(error)}"


def number_text(number: float) -> str:
    """Return four decimals, or four digits of a number that these would not show."""
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.4g}"


def time_text(seconds: float) -> str:
    """Return 0:07, 12:34 or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def values_text(values: Mapping[str, object], longest: int) -> str:
    """Return the values as `a=1 b=relu`, cut to about `longest` characters; the oracle's own are left out."""
    parts: list[str] = []
    length = 0
    for name, value in values.items():
        if name.startswith(_ORACLE_PREFIX):
            continue
        part = one_line(f"{name}={_value_text(value)}")
        length += len(part) + 1
        if parts and length > longest:
            parts.append("…")
            break
        parts.append(part)
    return " ".join(parts)


def _value_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _device_text(device: str) -> str:
    """Return enough of a UUID to tell the cards of one machine apart."""
    return device[:12] if device.startswith(("GPU-", "MIG-")) else device


def _device_line(event: DeviceChanged) -> str:
    device = _device_text(event.device)
    if event.reason is None:
        return f"{device} is used again"
    return f"{device} is not used: {event.reason}"


def _seconds_text(trial: Trial) -> str:
    """Return how long the trial's runs took together."""
    seconds = [run.seconds for run in trial.runs if run.seconds is not None]
    return f"{sum(seconds):.1f} s" if seconds else ""


def _reason_parts(message: str) -> Iterator[str]:
    """Yield the line of a message that names the error, a traceback's last one, and where the log is."""
    lines = message.strip().splitlines()
    logs = [line.removeprefix(LOG_MARK) for line in lines if line.startswith(LOG_MARK)]
    texts = [line.strip() for line in lines if line.strip() and not line.startswith(LOG_MARK)]
    yield texts[-1] if texts else ""
    yield f"log: {logs[-1]}" if logs else ""


def _end_text(event: SearchEnded) -> str:
    """Return why the search ended. A failure is raised in full to the caller: its first line is enough."""
    match event.reason:
        case EndReason.MAX_TRIALS:
            return "max_trials is reached"
        case EndReason.EXHAUSTED:
            return event.message or "every point of the space was tried"
        case EndReason.STOPPED:
            return event.message or "it was asked to stop"
        case EndReason.FAILED:
            return (event.message or "it failed").splitlines()[0].rstrip(":")
        case (
            EndReason.TIME
            | EndReason.EPOCHS
            | EndReason.GPU_HOURS
            | EndReason.ENERGY
            | EndReason.TARGET
            | EndReason.PATIENCE
        ):
            return event.message or event.reason.value
        case _:
            assert_never(event.reason)
