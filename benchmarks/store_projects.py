"""The facts of long searches, as their trials would report them: of random search, and of Hyperband."""

from __future__ import annotations

import random
from collections.abc import Iterator

from aiotune.events import (
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchOpened,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.base import Exhausted, Promote, Retire, Suggest
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.space import Boolean, Choice, Float, Int, Values
from aiotune.trial import Budget, RunState, Trial, TrialState, trial_id_of

__all__ = [
    "EPOCHS",
    "METRICS",
    "OBJECTIVE",
    "SPACE",
    "hyperband",
    "hyperband_facts",
    "random_facts",
]

EPOCHS = 20
OBJECTIVE = Objective("val_accuracy", "max")
METRICS = ("accuracy", "loss", "val_accuracy", "val_loss")
SPACE = (
    Int("units", 32, 512, step=32),
    Float("rate", 1e-4, 1e-1, sampling="log"),
    Choice("activation", ["relu", "tanh"]),
    Boolean("bias"),
    Float("dropout", 0.0, 0.5),
)
_AT = 1.7e9  # any wall clock
_MAX_EPOCHS = 81
_TRIALS_OF_A_PASS = 143  # over all brackets of that many epochs


def opening(oracle: str) -> list[Event]:
    return [
        SearchOpened(_AT, OBJECTIVE.get_config(), 1, oracle, "0", 1),
        SpaceGrew(_AT, None, SPACE),
    ]


def random_facts(trials: int) -> Iterator[list[Event]]:
    """Yield the facts of a search, those of a trial at a time; the first come with its opening."""
    chance = random.Random(1)
    yield opening("RandomSearchOracle")
    for number in range(trials):
        trial_id, values = trial_id_of(number), _values(chance)
        best = _metrics(chance)
        yield [
            TrialCreated(_AT, trial_id, number, number, values, asked_after=0),
            *_run(trial_id, 0, range(EPOCHS), values, chance),
            RunEnded(_AT, trial_id, 0, RunState.FINISHED, best, best_step=EPOCHS - 1),
            TrialEnded(_AT, trial_id, TrialState.COMPLETED, best["val_accuracy"], EPOCHS - 1, best),
        ]


def hyperband(trials: int) -> HyperbandOracle:
    """Return an oracle that proposes about as many trials."""
    passes = max(1, trials // _TRIALS_OF_A_PASS)
    return HyperbandOracle(OBJECTIVE, _MAX_EPOCHS, 3, hyperband_iterations=passes, seed=1)


def hyperband_facts(trials: int) -> Iterator[list[Event]]:
    """Yield the same of Hyperband, run after run: about twenty epochs to a trial."""
    chance, oracle, history = random.Random(1), hyperband(trials), History()
    oracle.follow(lambda: history)
    facts = opening("HyperbandOracle")
    while True:
        for fact in facts:
            history.apply(fact)
        yield facts
        answer = oracle.next_answer(history, history.next_number)
        match answer:
            case Suggest(values=values, budget=budget, stream=stream):
                number = history.next_number
                facts = [
                    TrialCreated(
                        _AT, trial_id_of(number), number, stream, values, history.length, budget
                    ),
                    *_budgeted(trial_id_of(number), 0, budget, dict(values), chance),
                ]
            case Promote(trial_id, budget):
                trial = history.trial(trial_id)
                facts = [
                    TrialPromoted(_AT, trial_id, budget),
                    *_budgeted(trial_id, len(trial.runs), budget, dict(trial.values), chance),
                ]
            case Retire(trial_id):
                facts = [_ended(history.trial(trial_id))]
            case Exhausted():
                return
            case _:
                raise RuntimeError(f"{answer} with nothing in flight")


def _ended(trial: Trial) -> TrialEnded:
    metrics = trial.runs[-1].metrics
    return TrialEnded(
        _AT, trial.trial_id, TrialState.COMPLETED, trial.score, trial.best_step, metrics
    )


def _budgeted(
    trial_id: str, run: int, budget: Budget | None, values: Values, chance: random.Random
) -> Iterator[Event]:
    """Yield a run under a budget, and the pause or the end after it."""
    if budget is None:
        raise RuntimeError("a trial of Hyperband has a budget")
    best, last = _metrics(chance), budget.epochs - 1
    yield from _run(
        trial_id, run, range(budget.initial_epoch, budget.epochs), values, chance, budget
    )
    yield RunEnded(_AT, trial_id, run, RunState.FINISHED, best, best_step=last)
    score = best["val_accuracy"]
    if budget.is_last:
        yield TrialEnded(_AT, trial_id, TrialState.COMPLETED, score, last, best)
    else:
        yield TrialPaused(_AT, trial_id, score, last)


def _run(
    trial_id: str,
    run: int,
    epochs: range,
    values: Values,
    chance: random.Random,
    budget: Budget | None = None,
) -> Iterator[Event]:
    log = f"trial_{trial_id}/run-{run}.log"
    yield RunStarted(_AT, trial_id, run, 0, 0, ("cpu:0",), log, budget)
    if run == 0:  # later ones meet the same names, which is no news
        yield TrialMet(_AT, trial_id, SPACE, values, is_complete=True)
    for epoch in epochs:
        yield Reported(_AT, trial_id, run, epoch, _metrics(chance))


def _values(chance: random.Random) -> Values:
    return {each.name: each.from_unit(chance.random()) for each in SPACE}


def _metrics(chance: random.Random) -> dict[str, float]:
    """Return metrics with as many digits as those of a framework have."""
    return {name: chance.random() for name in METRICS}
