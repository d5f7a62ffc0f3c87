from __future__ import annotations

import random
from collections import Counter

import pytest

from aiotune.events import Event, SearchOpened, TrialEnded, TrialPaused, TrialPromoted
from aiotune.history import History
from aiotune.objective import MultiObjective, Objective
from aiotune.ranking import best_trials
from aiotune.trial import Budget, TrialState
from tests.support.facts import created, ended, run_ended, started
from tests.support.records import trial

ACCURACY = Objective("accuracy", "max")
TRIALS = (
    trial(number=0, state=TrialState.COMPLETED, score=0.5),
    trial(number=1, state=TrialState.FAILED, message="ValueError"),
    trial(number=2, state=TrialState.PRUNED, score=0.9),
    trial(number=3, state=TrialState.COMPLETED, score=0.9),
    trial(number=4, state=TrialState.COMPLETED, score=float("nan")),
    trial(number=5, state=TrialState.RUNNING),
)


def test_the_best_come_first_and_of_equal_ones_the_older() -> None:
    best = best_trials(TRIALS, ACCURACY, 10)
    assert [each.number for each in best] == [2, 3, 0]
    assert [each.number for each in best_trials(TRIALS, Objective("a", "min"), 2)] == [0, 2]


def test_a_trial_keeps_the_score_of_a_budget_that_it_has_used_up() -> None:
    """While it is paused, goes on, and if it breaks then."""
    states = (TrialState.PAUSED, TrialState.QUEUED, TrialState.RUNNING, TrialState.FAILED)
    trials = [trial(number=n, state=state, score=float(n)) for n, state in enumerate(states)]
    assert [each.number for each in best_trials(trials, ACCURACY, 10)] == [3, 2, 1, 0]


def test_failed_and_unfinished_trials_never_pad_the_list() -> None:
    assert best_trials(TRIALS[1:2], ACCURACY, 3) == []


LOSS = Objective("val_loss", "min")
SCORES = (0.5, 0.25, float("nan"), 0.25, None, 0.125, float("inf"))


def opened(objective: Objective) -> SearchOpened:
    return SearchOpened(1.0, objective.get_config(), 1, "Oracle", "0")


def facts_of_chance(seed: int, trials: int = 40) -> list[Event]:
    """Return a search whose trials end in many ways, some after a pause with another score."""
    chance = random.Random(seed)
    facts: list[Event] = []
    for number in range(trials):
        facts += [created(number), started(number), run_ended(number)]
        trial_id = f"{number:04d}"
        if chance.random() < 0.4:
            facts.append(TrialPaused(8.5, trial_id, chance.choice(SCORES), 1))
            if chance.random() < 0.5:
                facts += [TrialPromoted(8.6, trial_id, Budget(9)), started(number, run=1)]
                facts.append(run_ended(number, run=1))
        if chance.random() < 0.8 and not isinstance(facts[-1], TrialPaused):
            status = chance.choice([TrialState.COMPLETED, TrialState.FAILED, TrialState.PRUNED])
            facts.append(ended(number, status, chance.choice(SCORES)))
    return facts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objective", [LOSS, ACCURACY, MultiObjective([LOSS, ACCURACY], by="sum")])
def test_history_keeps_the_same_ranking_and_counts_after_each_fact(
    objective: Objective, seed: int
) -> None:
    history = History([opened(objective)])
    for fact in facts_of_chance(seed):
        history.apply(fact)
        trials = history.trials.values()
        for count in (1, 10, 1000):
            assert history.best_trials(objective, count) == best_trials(trials, objective, count)
        assert history.counts() == Counter(each.status for each in trials)


def test_history_answers_for_another_objective_too() -> None:
    known = History([opened(LOSS), *facts_of_chance(1)])
    for history in (known, History(facts_of_chance(1))):
        found = history.best_trials(ACCURACY, 3)
        assert found == best_trials(history.trials.values(), ACCURACY, 3)
        assert len(found) == 3


def test_ranking_of_a_snapshot_stands_still() -> None:
    history = History([opened(LOSS), created(0), started(0), run_ended(0)])
    snapshot = history.snapshot()
    history.apply(TrialEnded(9.0, "0000", TrialState.COMPLETED, 0.5))
    assert [each.score for each in history.best_trials(LOSS, 1)] == [0.5]
    assert snapshot.best_trials(LOSS, 1) == []
    assert (snapshot.counts(), history.counts()) == ({"QUEUED": 1}, {"COMPLETED": 1})


@pytest.mark.parametrize("direction", ["min", "max"])
def test_cost_and_better_than_agree(direction: str) -> None:
    objective = Objective("score", direction)  # type: ignore[arg-type]
    values = (-1.0, 0.0, 0.5, float("inf"), float("-inf"))
    for a in values:
        for b in values:
            assert (objective.cost(a) < objective.cost(b)) == objective.better_than(a, b)
