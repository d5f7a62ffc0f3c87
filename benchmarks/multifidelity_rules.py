"""The schedulers that are simulated: ours, our Hyperband without overlap, and KerasTuner's rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random

from aiotune import Curve, HyperParameters, Objective
from aiotune.history import History
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Answer, Exhausted, Oracle, Promote, Suggest, Wait
from aiotune.oracles.brackets import brackets_of, budgets_of
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.trial import Budget, Trial, TrialState

__all__ = ["SCORE", "KerasTunersRule", "OneBracketAtATime", "contenders", "curves", "failing"]

SCORE = Objective("score", "max")

# 95 % of all trials take times within a factor of 10.
_SPREAD = math.log(10) / (2 * 1.96)


def curves(hp: HyperParameters, chance: Random) -> Curve:
    """Return a curve that rises towards a value of the point; early ranks are not always the last ones."""
    final, speed = hp.Float("final", 0.0, 1.0), hp.Float("speed", 0.02, 1.0, sampling="log")
    seconds = math.exp(chance.gauss(0.0, _SPREAD))
    return Curve(lambda epoch: {"score": final * (1 - math.exp(-speed * (epoch + 1)))}, seconds)


def failing(hp: HyperParameters, chance: Random) -> Curve:
    """Return the same, but one trial of twenty runs out of memory in its first epoch."""
    curve = curves(hp, chance)
    breaks_at = 0 if chance.random() < 0.05 else None
    return Curve(curve.metrics, curve.seconds, breaks_at=breaks_at, failure="out of memory")


def contenders(max_epochs: int = 81, factor: int = 3) -> dict[str, Oracle]:
    """Return the schedulers by name, each with as many points as Hyperband's brackets have."""
    trials = HyperbandOracle(SCORE, max_epochs, factor).plan().trials
    return {
        "Hyperband": HyperbandOracle(SCORE, max_epochs, factor),
        "ASHA": AshaOracle(SCORE, max_epochs, factor, max_trials=trials),
        "one bracket at a time": OneBracketAtATime(SCORE, max_epochs, factor),
        "KerasTuner's rule": KerasTunersRule(max_epochs, factor),
    }


class OneBracketAtATime(HyperbandOracle):
    """Hyperband as it is mostly written: the next bracket begins when the last run of one has ended."""

    def ask(self, history: History, number: int) -> Answer:
        answer = super().ask(history, number)
        if not isinstance(answer, Suggest) or answer.budget is None:
            return answer
        begun = {_bracket(trial.budget) for trial in history.trials_in_flight() if trial.budget}
        return Wait() if begun - {_bracket(answer.budget)} else answer


def _bracket(budget: Budget) -> tuple[int, int | None]:
    return budget.iteration, budget.bracket


class KerasTunersRule(Oracle):
    """Which trial comes next in KerasTuner 1.4.8's Hyperband, read off its behaviour.

    A bracket's first rung is filled; then the best trial that waits in a rung is promoted as soon as more of
    them wait than will stay behind for good. Failed ones never count. Where nothing can be done, the next
    bracket is opened.
    """

    def __init__(self, max_epochs: int, factor: int) -> None:
        super().__init__(SCORE)
        self._brackets = brackets_of(max_epochs, factor)
        self._sampler = RandomSearchOracle(SCORE, max_trials=None)

    def ask(self, history: History, number: int) -> Answer:
        self._sampler.seed = self.seed
        opened = [each.budget.bracket for each in history.trials.values() if each.budget]
        for bracket in self._brackets:
            budgets = budgets_of(bracket)
            if opened.count(bracket.number) < bracket.size:
                answer = self._sampler.draw(history)
                assert isinstance(answer, Suggest)
                return Suggest(answer.values, answer.stream, budgets[0])
            sizes = [rung.size for rung in bracket.rungs]
            promoted = next(_promotions(history, budgets, sizes), None)
            if promoted is not None:
                return promoted
        return Wait() if history.has_trials_in_flight else Exhausted()

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        return False


def _promotions(
    history: History, budgets: Sequence[Budget], sizes: Sequence[int]
) -> Iterator[Promote]:
    """Yield what the rule allows in one bracket, the lowest rung first."""
    for rung, budget in enumerate(budgets[1:]):
        waiting = [
            trial
            for trial in history.open_trials()
            if trial.budget == budgets[rung] and trial.state is TrialState.PAUSED
        ]
        if len(waiting) > sizes[rung] - sizes[rung + 1]:
            best = max(waiting, key=lambda trial: trial.score or 0.0)
            yield Promote(best.trial_id, budget)
