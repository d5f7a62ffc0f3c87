"""What a simulated search did with its devices and its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aiotune.events import EndReason, Event, Reported
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.ranking import best_trials
from aiotune.trial import Trial, TrialState

__all__ = ["Progress", "SimulationResult", "Span", "spans_of"]


@dataclass(frozen=True, slots=True)
class Span:
    """One run on its devices, in seconds since the search began."""

    trial_id: str
    run: int  # its index in the trial: above 0 a promotion, a repeat or a retry
    devices: tuple[str, ...]
    start: float
    end: float
    epochs: int  # that it reported

    @property
    def device_seconds(self) -> float:
        return (self.end - self.start) * len(self.devices)


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What `aiotune.simulate(...)` returns. Times are seconds of virtual time, since the search began."""

    reason: EndReason  # why the search ended
    message: str | None
    trials: tuple[Trial, ...] = field(repr=False)  # in the order of asking
    objective: Objective = field(repr=False)
    devices: int
    seconds: float  # until the search ended
    best_over_time: tuple[tuple[float, float], ...] = field(repr=False)  # (when, score): each gain
    runs: tuple[Span, ...] = field(repr=False)  # in the order of their starts

    # --- what was found ---

    def best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Return the best trials, best first; fewer if fewer have a score."""
        return best_trials(self.trials, self.objective, num_trials)

    @property
    def best_trial(self) -> Trial | None:
        """The best trial, or None if no trial has a score."""
        return next(iter(self.best_trials(1)), None)

    @property
    def best_score(self) -> float | None:
        return self.best_trial.score if self.best_trial else None

    def seconds_to(self, score: float) -> float | None:
        """Return when a run first reported this score or a better one; None: none did."""
        return next(
            (
                when
                for when, best in self.best_over_time
                if not self.objective.better_than(score, best)
            ),
            None,
        )

    # --- what it took ---

    @property
    def epochs(self) -> int:
        """How many epochs all runs reported."""
        return sum(run.epochs for run in self.runs)

    @property
    def busy_seconds(self) -> float:
        """How long devices were held by runs, added up."""
        return sum(run.device_seconds for run in self.runs)

    @property
    def idle_seconds(self) -> float:
        """How long devices were free before the search ended, added up."""
        return self.devices * self.seconds - self.busy_seconds

    @property
    def last_trial_start(self) -> float:
        """When the first run of the last new trial started: later runs are promotions, repeats and retries."""
        return max((run.start for run in self.runs if run.run == 0), default=0.0)

    @property
    def last_run_start(self) -> float:
        """When the last run of all started: from then on devices only become free."""
        return max((run.start for run in self.runs), default=0.0)

    def utilisation(self, until: float | None = None) -> float:
        """Return the share of their time that the devices were held by runs, from 0 to 1.

        until: a moment, such as `last_run_start`; by default the end.
        """
        until = self.seconds if until is None else until
        if not until > 0:
            return 0.0
        busy = sum(
            (min(run.end, until) - run.start) * len(run.devices)
            for run in self.runs
            if run.start < until
        )
        return busy / (self.devices * until)

    def __str__(self) -> str:
        rows = list(self._rows())
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _rows(self) -> Iterator[tuple[str, str]]:
        counts = Counter(trial.status for trial in self.trials)
        states = ", ".join(f"{counts[state]} {state}" for state in TrialState if counts[state])
        yield "trials", f"{len(self.trials)} ({states})" if states else "0"
        yield "runs, epochs", f"{len(self.runs)}, {self.epochs}"
        best = self.best_trial
        if best is not None:
            reached = self.seconds_to(best.score) if best.score is not None else None
            when = "" if reached is None else f", reached after {reached:.4g} s"
            yield f"best {self.objective.name}", f"{best.score:.6g} in trial {best.trial_id}{when}"
        yield "time", f"{self.seconds:.4g} s on {self.devices} devices"
        yield "devices busy", f"{self.utilisation():.1%} ({self.busy_seconds:.4g} device seconds)"
        yield (
            "until the last run's start",
            f"{self.utilisation(self.last_run_start):.1%} ({self.last_run_start:.4g} s)",
        )
        yield "ended by", self.reason.value + (f": {self.message}" if self.message else "")


class Progress:
    """An observer: the best score so far, whenever a run reports a better one."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.gains: list[tuple[float, float]] = []

    def __call__(self, fact: Event, history: History) -> None:
        if not isinstance(fact, Reported) or not self._objective.has_value(fact.metrics):
            return
        value = self._objective.get_value(fact.metrics)
        is_gain = value == value and (
            not self.gains or self._objective.better_than(value, self.gains[-1][1])
        )
        if is_gain:
            self.gains.append((fact.at, value))


def spans_of(trials: Sequence[Trial]) -> tuple[Span, ...]:
    """Return the runs of all trials, which are over, in the order of their starts."""
    spans = [
        Span(
            trial.trial_id,
            run.index,
            run.devices,
            run.started_at,
            run.started_at if run.ended_at is None else run.ended_at,
            len(run.observations),
        )
        for trial in trials
        for run in trial.runs
    ]
    return tuple(sorted(spans, key=lambda span: span.start))
