"""The oracle's contract: what to try next, whether to go on, what was learnt.

An oracle is plain synchronous Python and knows trials, never runs, devices or files. It may keep caches, but
only such as can be derived from the history that it is given: same seed and same facts in the same order,
same answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Any, NoReturn, TypeVar

from aiotune.constraints import Bound, Constraint
from aiotune.errors import FatalError, FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.learning.priors import Priors
from aiotune.objective import Objective, create_objective
from aiotune.oracles.answers import Answer, Exhausted, Promote, Retire, Suggest, Wait
from aiotune.oracles.queued import PointQueue
from aiotune.oracles.tried import Fill
from aiotune.ranking import best_trials
from aiotune.space import HyperParameter, Scalar, Space, Values, unit_draw
from aiotune.trial import Observation, Trial, trial_id_of

__all__ = [
    "Answer",
    "Exhausted",
    "Oracle",
    "Promote",
    "Retire",
    "Suggest",
    "Verdict",
    "Wait",
    "synchronized",
]


Count = TypeVar("Count", int, int | None)
Method = TypeVar("Method", bound=Callable[..., Any])

_MOST_COMPLETIONS = 1000


class Verdict(Enum):
    """What becomes of a running trial after a report."""

    CONTINUE = auto()
    STOP = auto()
    PAUSE = auto()


_BY_ITSELF = "the search does it, `await tuner.search(...)`; steps of your own go into run_trial"
_ABSENT: Mapping[str, str] = {
    "create_trial": _BY_ITSELF,
    "end_trial": f"{_BY_ITSELF}. To learn of an end define tell(trial), or on_trial_end of a tuner",
    "update_trial": "report metrics in run_trial: trial.report(step, loss=...), or return them",
    "score_trial": "return the score from run_trial, under the objective's name",
    "_score_trial": "return the score from run_trial, under the objective's name",
    "_populate_space": "name it populate_space",
    "update_space": "declare the names in hyperparameters=, or in the program",
    "ongoing_trials": "ask for trials whose status is RUNNING: self.trials.values()",
    "tuner_ids": "one program runs all trials; there are no workers",
    "multi_worker": "one program runs all trials; there are no workers",
    "should_report": "one program runs all trials; there are no workers",
    "verbose": "pass verbose= to search()",
    "save": "every fact is stored when it happens",
    "reload": "call tuner.reload()",
}
_NEVER_CALLED = frozenset(
    {"create_trial", "end_trial", "update_trial", "score_trial", "_score_trial", "_populate_space"}
)


def synchronized(method: Method) -> Method:
    """Return the method as it is: a search calls its oracle from one thread. For KerasTuner's oracles."""
    return method


class Oracle:
    """Proposes trials. Subclasses implement `ask`, and `judge` and `tell` where they have a say.

    One that was written for KerasTuner implements `populate_space(trial_id)` instead of `ask`.

    max_trials: how many trials in all, over every session of the project; None: until exhausted.
    hyperparameters: declarations that are known beforehand; they win over the program's.
    seed: None is replaced by the study's own seed, which the store keeps, before the first `ask`.
    """

    # Whether `ask` may take longer than an event loop should wait: more than some milliseconds. A search then
    # calls it in a thread, with a snapshot of the history and never beside `judge`, `tell` or `is_duplicate`,
    # and with several slots perhaps beforehand, while trials run; an answer that has no use then is dropped.
    asks_in_thread: bool = False

    # What the user knows beforehand; a tuner sets it before the search, from its keywords.
    # No point is proposed that the constraint refuses.
    constraint: Constraint | None = None
    # On metrics: a trial beyond them ends INFEASIBLE, without a score.
    bounds: tuple[Bound, ...] = ()
    # Where good values are believed to lie.
    priors: Priors | None = None
    # Trials of earlier searches, none of which is in the history.
    earlier: tuple[tuple[Trial, ...], ...] = ()

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = None,
        hyperparameters: HyperParameters | None = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        seed: int | None = None,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ) -> None:
        if hyperparameters is None and not (allow_new_entries and tune_new_entries):
            raise FatalValueError(
                "allow_new_entries=False and tune_new_entries=False restrict the search to given "
                "hyperparameters: pass them with hyperparameters=HyperParameters()"
            )
        self.objective = create_objective(objective)
        self.max_trials = _checked("max_trials", max_trials, at_least=1)
        self.hyperparameters = hyperparameters.copy() if hyperparameters else HyperParameters()
        self.allow_new_entries = allow_new_entries
        self.tune_new_entries = tune_new_entries
        self.seed = _checked("seed", seed, at_least=None)
        self.max_retries_per_trial = _checked(
            "max_retries_per_trial", max_retries_per_trial, at_least=0
        )
        self.max_consecutive_failed_trials = _checked(
            "max_consecutive_failed_trials", max_consecutive_failed_trials, at_least=1
        )
        self._read_history: Callable[[], History] = History
        self._queue = PointQueue()
        self._on_enqueue: Callable[[], object] | None = None
        self._checked_space: Space | None = None
        self._met: tuple[Space, list[HyperParameter], Space] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name in _NEVER_CALLED:
                raise FatalTypeError(
                    f"{cls.__name__}.{name} would never be called: {_ABSENT[name]}"
                )
            if name in ("get_state", "set_state"):
                warnings.warn(
                    f"{cls.__name__}.{name} is not called by a search: what an oracle knows must follow from "
                    "self.trials, so that a resumed search goes on as the first one would have",
                    stacklevel=2,
                )

    def __getattr__(self, name: str) -> NoReturn:
        if name in _ABSENT:
            raise AttributeError(f"an Oracle has no {name}: {_ABSENT[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- what it proposes ---

    def tunable(self, history: History) -> Space:
        """Return the space whose values the oracle proposes; other names take their default."""
        return history.space if self.tune_new_entries else Space(self.hyperparameters.space)

    @property
    def draws_new_names(self) -> bool:
        """Whether a name without a proposed value is drawn where a run meets it; else it takes its default."""
        return self.tune_new_entries

    @property
    def given(self) -> frozenset[str]:
        """The names that were declared beforehand: the program may declare them otherwise."""
        return frozenset(each.name for each in self.hyperparameters.space)

    @property
    def chance(self) -> int:
        """The seed that every draw derives from. FatalRuntimeError before the first search has set it."""
        if self.seed is not None:
            return self.seed
        opened = self._read_history().opened
        if opened is None:
            raise FatalRuntimeError("the oracle has no seed yet: the search sets it when it opens")
        return opened.seed

    def next_answer(self, history: History, number: int) -> Answer:
        """Return what to do next: what `ask` says, with a point of the queue in the place of a suggested one.

        FatalValueError for points of the queue, and priors, that do not fit the space.
        """
        self._check_knowledge(history)
        answer = self.ask(history, number)
        if not self._queue:
            return answer
        match answer:
            case Suggest(parent=None):  # a descendant has its values from its parent
                return self._queued(history, answer) or answer
            case Exhausted() if not _has_budgets(history):
                return self._queued(history, Suggest({}, stream=number)) or answer
            case _:
                return answer

    def ask(self, history: History, number: int) -> Answer:
        """Return what to do next; `number` is the number that a new trial would get."""
        self.follow(lambda: history)
        return _answer(self, self.populate_space(trial_id_of(number)), number)

    def populate_space(self, trial_id: str) -> Mapping[str, Any]:
        """Return {"status": "RUNNING", "values": {...}} for a new trial, or the status "IDLE" or "STOPPED".

        IDLE: nothing before something in flight ends. STOPPED: nothing more, ever. The names of the space are
        in `get_space()`, the trials so far in `trials`. Names that the values leave out are drawn.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define ask(history, number), or populate_space(trial_id)"
        )

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        """Rule on a running trial whose newest report is `observation`."""
        return Verdict.CONTINUE

    def tell(self, trial: Trial) -> None:
        """Learn that `trial` is over or paused."""

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        """Tell whether `trial`, whose path is now known better, is the point of another trial."""
        return False

    # --- what the user knows ---

    def enqueue(self, *points: Mapping[str, Any] | HyperParameters, is_wish: bool = False) -> None:
        """Let these points be tried before any that the oracle proposes, but for those that a trial has.

        A part of a point is completed as a trial's other names are. is_wish: what the space does not have is
        left out. FatalValueError for values out of range, and for unknown names: at once where the space is
        known, else before the first trial.
        """
        queued = self._queue.add(points, is_wish=is_wish)
        history = self._read_history()
        given = Space(self.hyperparameters.space)
        space = given.grow(history.space)
        has_all_names = (
            len(space) > len(given) or history.next_number > 0 or not self.allow_new_entries
        )
        try:
            self._queue.check(space, partial(self.allows, history), is_known=has_all_names)
        except FatalError:
            self._queue.remove(queued)
            raise
        if self._on_enqueue is not None:
            self._on_enqueue()

    def watch_queue(self, on_enqueue: Callable[[], object] | None) -> None:
        """Call this whenever a point is enqueued; None: no longer. A search does, while it is on."""
        self._on_enqueue = on_enqueue

    @property
    def is_searching(self) -> bool:
        """Whether a search watches the queue."""
        return self._on_enqueue is not None

    def allows(self, history: History, values: Mapping[str, Scalar]) -> bool:
        """Tell whether the user's constraint allows a point over the space of `history`.

        FatalRuntimeError, FatalTypeError for a constraint that gives no answer.
        """
        if self.constraint is None:
            return True
        return self.constraint.allows(self._known(history), values)

    def fill(self, stream: int) -> Fill:
        """Return the value that a run of this stream gives any name, known or not, that it has none for."""
        return self._drawing(stream, None)

    def drawn(self, stream: int) -> Fill:
        """Return the value that a proposal of this stream has for any name: as `fill`, led by the priors."""
        return self._drawing(stream, self.priors)

    def _drawing(self, stream: int, priors: Priors | None) -> Fill:
        seed = self.chance

        def draw(each: HyperParameter) -> Scalar:
            u = unit_draw(seed, stream, each.name)
            return each.from_unit(u if priors is None else priors.warp(each, u))

        if self.tune_new_entries:
            return draw
        known = {each.identity for each in self.hyperparameters.space}
        return lambda each: draw(each) if each.identity in known else each.default

    def completed(self, history: History, values: Values, suggested: Suggest) -> Suggest | None:
        """Return a suggestion of a point of which `values` are given; `suggested` has all but the values.

        Other names are drawn from its stream; where the constraint refuses that, they are drawn again. None if
        it refuses every try.
        """
        space = self.tunable(history)
        for attempt in range(_MOST_COMPLETIONS):
            stream = suggested.stream if attempt == 0 else _spare(suggested.stream, attempt)
            point = space.complete(self.drawn(stream), values)
            if self.allows(history, point):
                return replace(suggested, values=point)
        return None

    def _queued(self, history: History, suggested: Suggest) -> Suggest | None:
        """Return the first point of the queue that no trial has, or None."""
        space, allows = self._known(history), partial(self.allows, history)
        while (found := self._queue.first_new(history, space, allows)) is not None:
            suggestion = self.completed(history, found.values, suggested)
            if suggestion is not None:
                return suggestion
            self._queue.give_up(found)
        return None

    def _check_knowledge(self, history: History) -> None:
        """Check what the user gave beforehand against a space that is new."""
        space = self._known(history)
        if history.space is not self._checked_space:
            if self.priors is not None:
                self.priors.check(space)
            if len(space):
                self.earlier = tuple(_related(trials, space) for trials in self.earlier)
            self._checked_space = history.space
        self._queue.check(space, partial(self.allows, history))

    def _known(self, history: History) -> Space:
        """Return the names that are known, those declared beforehand included."""
        given = self.hyperparameters.space
        if self._met is None or self._met[0] is not history.space or self._met[1] != given:
            self._met = history.space, given, Space(given).grow(history.space)
        return self._met[2]

    # --- what is known ---

    def follow(self, read_history: Callable[[], History]) -> Callable[[], History]:
        """Answer questions about the search from what this function returns. Returns the former one."""
        former, self._read_history = self._read_history, read_history
        return former

    @property
    def trials(self) -> Mapping[str, Trial]:
        """Every trial of the search by id, in the order of asking."""
        return self._read_history().trials

    def get_trial(self, trial_id: str) -> Trial:
        """Return the trial. KeyError with the ids that there are."""
        return self._read_history().trial(trial_id)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Return the best trials, best first; those without a score are never among them."""
        return best_trials(self.trials.values(), self.objective, num_trials)

    def get_space(self) -> HyperParameters:
        """Return the names that are known so far, with their defaults: a copy."""
        given = Space(self.hyperparameters.space)
        return HyperParameters(space=given.grow(self._read_history().space))

    @property
    def start_order(self) -> list[str]:
        """The ids of all trials, in the order of asking."""
        return list(self.trials)

    @property
    def end_order(self) -> list[str]:
        """The ids of the trials that are over, in the order of their ends."""
        return [trial.trial_id for trial in self._read_history().ended_trials()]

    def get_state(self) -> dict[str, Any]:
        """Return nothing: an oracle keeps no state of its own, every fact is in the store."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the store has every fact."""

    def remaining_trials(self) -> int | None:
        """Return how many trials `max_trials` leaves, or None without that limit."""
        if self.max_trials is None:
            return None
        return max(0, self.max_trials - self._read_history().counted())


def _has_budgets(history: History) -> bool:
    """Tell whether trials get budgets: without one a further trial has no place."""
    return history.next_number > 0 and history.numbered(0).budget is not None


def _related(trials: Sequence[Trial], space: Space) -> tuple[Trial, ...]:
    """Return the trials that have a name of the space."""
    return tuple(each for each in trials if any(space.named(name) for name in each.values))


def _spare(stream: int, attempt: int) -> int:
    """Return a number that is the stream of no trial: those are 0 or more."""
    return -1 - (stream * _MOST_COMPLETIONS + attempt)


def _answer(oracle: Oracle, populated: Mapping[str, Any], number: int) -> Answer:
    """Return what `populate_space` returned as an answer. FatalTypeError, FatalValueError for anything else."""
    name = f"{type(oracle).__name__}.populate_space()"
    if not isinstance(populated, Mapping) or "status" not in populated:
        raise FatalTypeError(
            f'{name} must return {{"status": ..., "values": ...}}, not {populated!r}'
        )
    match populated["status"]:
        case "RUNNING":
            return Suggest(dict(populated.get("values") or {}), stream=number)
        case "IDLE":
            return Wait()
        case "STOPPED":
            return Exhausted()
        case other:
            raise FatalValueError(
                f'{name}: status {other!r} is none of "RUNNING", "IDLE", "STOPPED"'
            )


def _checked(name: str, value: Count, *, at_least: int | None) -> Count:
    """Return `value` if it is None or a whole number in range."""
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"{name}={value!r}: a whole number is needed")
    if at_least is not None and value < at_least:
        raise FatalValueError(f"{name}={value}: it must be {at_least} or more")
    return value
