"""What trials scored at each fidelity: which one a model learns from, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from aiotune.history import History
from aiotune.learning.fidelity import Fidelities, reports_until
from aiotune.objective import Objective
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.stopping import AshaStoppingOracle
from aiotune.trial import Observation, Trial
from tests.support.rungs import Rungs

SCORE = Objective("score", "min")


def by_number(trial: Trial, epoch: int) -> float:
    """A score that falls by 10 with each epoch: n after one, n - 20 after three, n - 80 after nine."""
    return trial.number - 10.0 * epoch


def taught(search: Rungs, fidelities: Fidelities | None = None) -> list[tuple[int, float]]:
    found = (fidelities or Fidelities(SCORE)).lessons(search.history, search.history.space)
    pairs = zip(found.trials, found.scores, strict=True)
    return [(trial.number, float(score)) for trial, score in pairs]


def test_the_highest_fidelity_that_enough_trials_reached() -> None:
    """With one name four scores are enough. Others count as if they had gained what those did."""
    search = Rungs(HyperbandOracle(SCORE, 9, 3, seed=1), score=by_number)
    fidelities = Fidelities(SCORE)
    gained = {}
    while search.exhausted is None:
        search.run(steps=1)
        search.ask()
        pairs = taught(search, fidelities)
        reached = Counter(run.budget.epochs for t in search.trials for run in t.runs if run.budget)
        for number, score in pairs:
            gained[number, score - number] = reached
    assert {gain for _, gain in gained} == {0.0, -20.0, -80.0}
    assert min(reached[3] for (_, gain), reached in gained.items() if gain == -20.0) >= 4
    assert min(reached[9] for (_, gain), reached in gained.items() if gain == -80.0) >= 4
    assert taught(search, fidelities) == [(n, n - 80.0) for n in range(17)]


def test_without_a_trial_that_reached_both_there_is_nothing_to_gain() -> None:
    """Those of the first bracket that were not promoted say nothing of the second one's epochs."""
    oracle = AshaOracle(SCORE, 2, 2, max_trials=12, brackets=2, seed=3)
    search = Rungs(oracle, slots=12, score=by_number)
    search.ask()
    beginners = [t.trial_id for t in search.trials if t.budget is not None and t.budget.epochs == 2]
    for trial_id in beginners:
        search.pick = lambda running, wanted=trial_id: running.index(wanted)  # type: ignore[misc]
        search.run(steps=1)
    search.pick = lambda running: 0
    assert len(beginners) >= 4
    lessons = Fidelities(SCORE).lessons(search.history, search.history.space)
    assert lessons.count == len(beginners)
    assert not lessons.is_broken.any()


def test_what_is_read_bit_by_bit_is_what_is_read_at_once() -> None:
    oracle = HyperbandOracle(SCORE, 9, 3, seed=1, max_consecutive_failed_trials=99)
    search = Rungs(oracle, 3, fails=lambda trial: trial.number % 4 == len(trial.runs))
    fidelities = Fidelities(SCORE)
    while search.exhausted is None:
        search.run(steps=1)
        search.ask()
        steadily = fidelities.lessons(search.history, search.history.space)
        afresh = Fidelities(SCORE).lessons(History(search.facts), search.history.space)
        assert [each.number for each in steadily.trials] == [each.number for each in afresh.trials]
        assert steadily.scores.tolist() == pytest.approx(afresh.scores.tolist(), nan_ok=True)
        assert steadily.is_broken.tolist() == afresh.is_broken.tolist()


def test_failures_count_where_they_kept_a_trial_from() -> None:
    """One that broke on its way to three epochs has its score after one."""
    oracle = HyperbandOracle(SCORE, 9, 3, seed=1)
    search = Rungs(
        oracle, score=by_number, fails=lambda trial: len(trial.runs) > 1 or trial.number == 5
    )
    search.run(steps=10)
    failed = [trial.number for trial in search.trials if trial.status == "FAILED"]
    assert len(failed) > 1
    lessons = Fidelities(SCORE).lessons(search.history, search.history.space)
    broken = [
        t.number
        for t, is_broken in zip(lessons.trials, lessons.is_broken, strict=True)
        if is_broken
    ]
    assert broken == [5]
    assert dict(taught(search))[0] == 0.0


def test_promoted_trials_are_not_pending_anew() -> None:
    search = Rungs(HyperbandOracle(SCORE, 9, 3, seed=1), slots=2, score=by_number)
    kinds = set()
    while search.exhausted is None:
        search.run(steps=1)
        search.ask()
        in_flight = search.history.trials_in_flight()
        new = [trial for trial in in_flight if not trial.runs]
        lessons = Fidelities(SCORE).lessons(search.history, search.history.space)
        assert len(lessons.pending(search.history)) == len(new)
        kinds.add((len(in_flight), len(new)))
    assert {(2, 2), (2, 1)} <= kinds


def test_runs_that_train_through_are_looked_at_where_they_passed() -> None:
    """One alone goes to the end: that is not enough, and so all are seen as they were after one epoch."""
    oracle = AshaStoppingOracle(SCORE, 9, 3, max_trials=12, seed=1)
    search = Rungs(oracle, score=by_number, by_epoch=True).run()
    assert taught(search, Fidelities(SCORE, (1, 3, 9))) == [(n, float(n)) for n in range(12)]
    last = {trial.number: trial.score for trial in search.trials}
    assert last[0] == -80.0


def test_reports_until() -> None:
    search = Rungs(AshaStoppingOracle(SCORE, 9, 3, max_trials=1, seed=1), by_epoch=True).run()
    trial = search.trials[0]
    assert [each.step for each in reports_until(trial, trial.runs[0], 3)] == [0, 1, 2]
    assert reports_until(trial, trial.runs[0], 10) == []
    assert isinstance(reports_until(trial, trial.runs[0], 1)[0], Observation)
