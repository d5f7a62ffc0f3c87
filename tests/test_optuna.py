"""OptunaOracle: what samplers see, what becomes of their answers, that all follows from the facts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from aiotune.errors import FatalError, FatalRuntimeError, MissingFramework
from aiotune.events import (
    EndReason,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
)
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import MultiObjective, Objective
from aiotune.oracles import OptunaOracle, RandomSearchOracle
from aiotune.oracles.base import Oracle, Suggest
from aiotune.space import Float, Space, point_key
from aiotune.trial import FailureKind, RunState, TrialState
from tests.support.fake_executor import FakeExecutor, declaring
from tests.support.searches import SearchOfFakes
from tests.support.simulated import Simulation

SCORE = Objective("score", "min")

Make = Callable[[int], BaseSampler]


def tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=5)


def grouped(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=5, multivariate=True, group=True)


def genetic(seed: int) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=4)


def margin(seed: int) -> BaseSampler:
    """CMA-ES that notes for each trial from where in its own space it came."""
    return CmaEsSampler(seed=seed, with_margin=True)


def oracle(
    sampler: BaseSampler | Make | None = None, seed: int = 0, **options: Any
) -> OptunaOracle:
    return OptunaOracle(sampler, SCORE, options.pop("max_trials", None), seed=seed, **options)


def bowl(hp: HyperParameters) -> float:
    """Least, 0, at x = 0.3 and rate = 10**-2.3."""
    rate = hp.Float("rate", 1e-4, 1.0, sampling="log")
    return (hp.Float("x", -1, 1) - 0.3) ** 2 + (math.log10(rate) + 2.3) ** 2 / 4  # type: ignore[no-any-return]


def every_kind(hp: HyperParameters) -> float:
    """Each kind of range, names behind conditions and behind a plain `if`, and trials that fail."""
    kind = hp.Choice("kind", ["a", "b", "c"])
    with hp.conditional_scope("kind", ["a"]):
        hp.Int("depth", 1, 9)
    with hp.conditional_scope("kind", ["b"]):
        hp.Int("depth", 10, 90, step=20)
    size = hp.Float("size", 0, 1, step=0.1) if kind == "c" else 0.5
    units = hp.Int("units", 16, 512, step=2, sampling="log")
    reverse = hp.Float("reverse", 0.1, 0.9, sampling="reverse_log")
    batch = hp.Choice("batch", [16, 32, 64])
    hp.Choice("odd", [1, True, 1.0, "1", None])
    hp.Fixed("fixed", 3)
    hp.Int("only", 5, 5)
    if not hp.Boolean("is_small") and units == 512:
        raise MemoryError
    return size + (units - 64) ** 2 / 1e4 + reverse + batch / 64  # type: ignore[no-any-return]


def small(hp: HyperParameters) -> float:
    """2 + 3 + 9 points, few names known beforehand."""
    if hp.Choice("kind", ["plain", "deep"]) == "plain":
        return float(hp.Boolean("bias"))
    return float(sum(hp.Int(f"units_{layer}", 1, 3) for layer in range(hp.Int("layers", 1, 2))))


def distinct(search: Simulation) -> int:
    return len({point_key(point) for point in search.points})


# --- what it finds ---


def test_it_finds_more_than_random_search() -> None:
    drawn = median(
        Simulation(RandomSearchOracle(SCORE, 40, seed=seed), bowl).run(40).best for seed in range(5)
    )
    led = median(Simulation(oracle(seed=seed), bowl).run(40).best for seed in range(3))
    assert led < 0.3 * drawn


def test_a_maximum_is_found_as_well() -> None:
    higher = OptunaOracle(None, Objective("score", "max"), None, seed=1)
    search = Simulation(higher, lambda hp: -bowl(hp)).run(40)
    assert max(trial.score for trial in search.trials if trial.score is not None) > -0.02


def test_the_gaussian_process_of_optuna() -> None:
    search = Simulation(oracle(lambda seed: GPSampler(seed=seed, n_startup_trials=4)), bowl).run(8)
    assert distinct(search) == 8
    assert min(trial.score for trial in search.trials[4:] if trial.score is not None) < 0.05


# --- every sampler: in the space, none twice, all from the facts ---


@pytest.mark.parametrize(
    "sampler",
    [None, tpe, grouped, genetic, margin, CmaEsSampler, QMCSampler, RandomSampler],
    ids=lambda sampler: getattr(sampler, "__name__", "default"),
)
@pytest.mark.parametrize("slots", [1, 4])
def test_points_are_new_and_in_the_space_and_follow_from_the_facts(
    sampler: Make | None, slots: int
) -> None:
    program = bowl if sampler is margin else every_kind  # Optuna's fails where the space changes
    search = Simulation(oracle(sampler, 3), program, slots=slots, pick=lambda ids: len(ids) // 2)
    search.run(15)
    assert distinct(search) == 15
    for trial in search.trials:
        active = {each.name: each for each in search.history.space.active(trial.proposed)}
        assert all(active[name].contains(value) for name, value in trial.proposed.items())
        if trial.is_path_complete:
            met = Space(trial.space).active(trial.values)
            assert {each.name for each in met} == trial.values.keys()
    created = [(at, fact) for at, fact in enumerate(search.facts) if isinstance(fact, TrialCreated)]
    for at, fact in created[4::5]:
        answer = oracle(sampler, 3).ask(History(search.facts[:at]), fact.number)
        assert answer == Suggest(fact.values, stream=fact.stream), fact.number


@pytest.mark.parametrize(("sampler", "slots"), [(CmaEsSampler, 1), (tpe, 4)])
def test_a_finite_space_is_exhausted_exactly(sampler: Make, slots: int) -> None:
    search = Simulation(oracle(sampler), small, slots=slots).run(99)
    assert distinct(search) == len(search.points) == 2 + 3 + 9
    assert search.is_exhausted


def test_a_space_of_one_point() -> None:
    search = Simulation(oracle(), lambda hp: float(hp.Fixed("a", 1))).run(9)
    assert len(search.points) == 1
    assert search.is_exhausted


@pytest.mark.parametrize("sampler", [tpe, QMCSampler, genetic])
def test_eight_at_a_time_differ(sampler: Make) -> None:
    asking = Simulation(oracle(sampler), bowl, slots=12).run(12)
    asking.slots = 8
    asking.ask(20)
    assert len(asking.history.trials_in_flight()) == 8
    assert distinct(asking) == 20


def test_a_sequence_is_walked_without_a_gap() -> None:
    """QMCSampler notes in the study how far it is: the same points, whatever runs beside."""
    one, four = (
        Simulation(oracle(QMCSampler), bowl, slots=slots, pick=lambda ids: -1).run(17).points
        for slots in (1, 4)
    )
    # The first ones are drawn: the sampler takes its space from a trial that has ended.
    tail = {point_key(point) for point in one[1:]}
    assert len(tail & {point_key(point) for point in four[4:]}) == 13


def test_a_sampler_that_is_passed_is_kept() -> None:
    kept = TPESampler(seed=1, n_startup_trials=5)
    search = Simulation(oracle(kept), every_kind, slots=2).run(16)
    assert distinct(search) == 16
    again = Simulation(oracle(TPESampler(seed=1, n_startup_trials=5)), every_kind, slots=2).run(16)
    assert again.points == search.points


def test_only_given_names_are_tuned_when_new_entries_are_not() -> None:
    given = HyperParameters()
    given.Float("x", 0, 1)

    def program(hp: HyperParameters) -> float:
        return hp.Float("x", 0, 1) + hp.Float("y", 0, 1, default=0.25)  # type: ignore[no-any-return]

    search = Simulation(oracle(tpe, hyperparameters=given, tune_new_entries=False), program)
    assert {point["y"] for point in search.run(8).points} == {0.25}
    assert distinct(search) == 8


async def test_a_search_that_is_cut_anywhere_goes_on_as_it_would_have(tmp_path: Path) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Choice("kind", ["a", "b"])
        hp.Float("x", 0, 1)

    def score(values: dict[str, object]) -> float:
        assert isinstance(values["x"], float)
        return (values["x"] - 0.7) ** 2 + (values["kind"] == "a")

    def fresh() -> Oracle:
        return oracle(lambda seed: TPESampler(seed=seed, n_startup_trials=2), max_trials=4)

    whole = SearchOfFakes(fresh(), FakeExecutor(declaring(declare, score)), tmp_path)
    assert (await whole.run()).reason is EndReason.MAX_TRIALS
    points = [dict(trial.values) for trial in whole.history.trials.values()]
    async for cut, history in whole.resumed_at_every_cut(fresh):
        found = [dict(trial.values) for trial in history.trials.values()]
        assert found == points, f"cut after {cut} facts"


# --- what a sampler sees ---


class Witness(RandomSampler):
    """Draws, and remembers what it was shown when it was last asked."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self.seen: list[FrozenTrial] = []
        self.ended: list[tuple[int, OptunaState, Sequence[float] | None]] = []
        self.directions: list[str] = []

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.seen = [each for each in study.get_trials() if each.number < trial.number]
        self.directions = [each.name for each in study.directions]

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: OptunaState,
        values: Sequence[float] | None,
    ) -> None:
        self.ended.append((trial.number, state, values))


X = Float("x", 0.0, 1.0)


def trial_of(number: int, x: float, *end: Event) -> list[Event]:
    """Return the facts of a trial at `x` that has begun, and those of its end."""
    trial_id = f"{number:04d}"
    return [
        TrialCreated(10.0, trial_id, number, number, {"x": x}, 0),
        RunStarted(11.0, trial_id, 0, 0, 0, (), None),
        TrialMet(12.0, trial_id, (X,), {"x": x}, is_complete=True),
        *end,
    ]


def reports(number: int, *scores: float) -> list[Event]:
    return [
        Reported(13.0, f"{number:04d}", 0, step, {"score": score})
        for step, score in enumerate(scores)
    ]


def ended(number: int, state: TrialState, score: float | None = None, **details: Any) -> TrialEnded:
    return TrialEnded(20.0, f"{number:04d}", state, score, **details)


def test_a_sampler_sees_each_trial_as_what_became_of_it() -> None:
    facts: list[Event] = [
        SpaceGrew(0.0, None, (X,)),
        *trial_of(0, 0.1, *reports(0, 3.0, 2.0), ended(0, TrialState.COMPLETED, 2.0)),
        *trial_of(
            1, 0.2, ended(1, TrialState.FAILED, failure=FailureKind.CRASH, message="signal 9")
        ),
        *trial_of(2, 0.3, *reports(2, 5.0), ended(2, TrialState.PRUNED, 5.0)),
        *trial_of(3, 0.4, ended(3, TrialState.COMPLETED, math.nan)),
        *trial_of(4, 0.5, ended(4, TrialState.INFEASIBLE, failure=FailureKind.INFEASIBLE)),
        *trial_of(5, 0.6, *reports(5, 1.0)),
    ]
    witness = Witness(seed=0)
    oracle(witness).ask(History(facts), 6)
    assert [trial.state.name for trial in witness.seen] == [
        *("COMPLETE", "FAIL", "PRUNED", "FAIL", "FAIL", "RUNNING")
    ]
    assert [trial.params for trial in witness.seen] == [{"x": n / 10} for n in range(1, 7)]
    assert [trial.values for trial in witness.seen] == [[2.0], None, [5.0], None, None, None]
    assert witness.seen[0].intermediate_values == {0: 3.0, 1: 2.0}
    assert witness.seen[1].user_attrs["message"] == "signal 9"
    assert witness.seen[2].intermediate_values == {0: 5.0}
    assert [number for number, _, _ in witness.ended] == [0, 1, 2, 3, 4]
    assert witness.ended[2][1:] == (OptunaState.PRUNED, [5.0])


def test_what_is_new_is_added_to_what_it_saw_before() -> None:
    facts: list[Event] = [SpaceGrew(0.0, None, (X,)), *trial_of(0, 0.1), *trial_of(1, 0.2)]
    witness = Witness(seed=0)
    asking, history = oracle(witness), History(facts)
    asking.ask(history, 2)
    assert [trial.state.name for trial in witness.seen] == ["RUNNING", "RUNNING"]
    history.apply(RunEnded(19.0, "0001", 0, RunState.FINISHED, {"score": 4.0}))
    history.apply(ended(1, TrialState.COMPLETED, 4.0))
    asking.ask(history.snapshot(), 2)
    assert [trial.state.name for trial in witness.seen] == ["RUNNING", "COMPLETE"]
    assert witness.seen[1].values == [4.0]


def test_trials_of_earlier_searches_come_first() -> None:
    earlier = History(trial_of(0, 0.9, ended(0, TrialState.COMPLETED, 0.5)))
    witness = Witness(seed=0)
    asking = oracle(witness)
    asking.earlier = (tuple(earlier.trials.values()),)
    asking.ask(History([SpaceGrew(0.0, None, (X,)), *trial_of(0, 0.1)]), 1)
    assert [trial.params for trial in witness.seen] == [{"x": 0.9}, {"x": 0.1}]
    assert [trial.values for trial in witness.seen] == [[0.5], None]


# --- several objectives ---


def two_goals(hp: HyperParameters) -> Mapping[str, float]:
    x, y = hp.Float("x", 0, 1), hp.Float("y", 0, 1)
    return {"loss": x**2 + y, "accuracy": 1 - (x - 1) ** 2 - y}


BOTH = MultiObjective([Objective("loss", "min"), Objective("accuracy", "max")])


def test_a_front_is_looked_for_with_a_value_for_each_objective() -> None:
    witness = Witness(seed=0)
    search = Simulation(OptunaOracle(witness, BOTH, None, seed=0), two_goals).run(4)
    search.ask(5)
    assert witness.directions == ["MINIMIZE", "MAXIMIZE"]
    expected = [list(trial.final_metrics.values()) for trial in search.trials[:4]]
    assert [trial.values for trial in witness.seen[:4]] == expected


@pytest.mark.parametrize("sampler", [tpe, genetic])
def test_samplers_for_several_objectives(sampler: Make) -> None:
    search = Simulation(OptunaOracle(sampler, BOTH, None, seed=0), two_goals).run(30)
    late = [point["y"] for point in search.points[15:]]
    assert median(late) < 0.4  # y harms both  # type: ignore[type-var]


def test_a_sum_of_objectives_is_one_objective() -> None:
    witness = Witness(seed=0)
    goals = [Objective("loss", "min"), Objective("accuracy", "max")]
    search = Simulation(OptunaOracle(witness, goals, None, seed=0), two_goals).run(1)
    search.ask(2)
    assert witness.directions == ["MINIMIZE"]
    assert witness.seen[0].values == [search.trials[0].score]


# --- bad input ---


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("tpe", "a class of optuna.samplers is needed"),
        (3, "a class of optuna.samplers is needed"),
        (lambda seed: 3, "which returned a int"),
        (lambda: TPESampler(), "makes no sampler for a seed"),
        (optuna.samplers.PartialFixedSampler, "makes no sampler for a seed"),
        (lambda seed: TPESampler(), "draws otherwise each time"),
        (lambda seed: TPESampler(seed=3), "draws the same for every seed"),
        (GridSampler({"x": [1, 2]}), "use aiotune.GridSearch"),
        (BruteForceSampler, "use aiotune.GridSearch"),
    ],
)
def test_what_is_no_sampler_is_refused_at_once(sampler: Any, message: str) -> None:
    with pytest.raises(FatalError, match=message):
        OptunaOracle(sampler)


def test_a_sampler_that_cannot_do_several_objectives_is_refused_at_once() -> None:
    with pytest.raises(FatalRuntimeError, match="CmaEsSampler finds no point for MultiObjective"):
        OptunaOracle(CmaEsSampler, BOTH)


def test_an_error_of_a_sampler_says_whose_it_is() -> None:
    class Broken(RandomSampler):
        def sample_independent(self, *arguments: Any) -> Any:
            raise KeyError("lost")

    search = Simulation(oracle(Broken(seed=0)), bowl)
    with pytest.raises(FatalRuntimeError, match="Optuna's Broken finds no point: KeyError: 'lost'"):
        search.run(1)


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingFramework, match=r"pip install 'aiotune\[optuna\]'"):
        OptunaOracle()


class Odd(BaseSampler):
    """Wants a seed under another name, and gives what no range has."""

    def __init__(self, seed: int) -> None:
        self._value = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        return self._value % 1000 + 0.5


def test_a_value_out_of_range_is_brought_to_the_nearest_one() -> None:
    def program(hp: HyperParameters) -> float:
        return hp.Float("x", 0, 1) + hp.Int("n", 1, 4)  # type: ignore[no-any-return]

    search = Simulation(oracle(Odd), program).run(3)
    assert search.points[0] == {"x": 1.0, "n": 4}
    assert distinct(search) == 3
