from __future__ import annotations

import json
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotune.events import (
    CheckpointsDropped,
    DeviceChanged,
    EndReason,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialPaused,
    TrialPromoted,
    from_json,
    to_json,
)
from aiotune.space import Choice, Condition, Fixed, Float, Int
from aiotune.trial import Budget, FailureKind, RunState, TrialState, Usage
from tests.support.facts import every_kind

TEXT = st.text(st.characters(codec=None), max_size=20)
NUMBERS = st.floats(allow_nan=False)
METRICS = st.dictionaries(TEXT, NUMBERS, max_size=4)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT)
COUNTS = st.integers(0, 1000)
BUDGETS = st.builds(
    Budget, COUNTS, COUNTS, st.none() | COUNTS, st.none() | COUNTS, COUNTS, st.booleans()
)


def travelled(event: Event) -> Event:
    """Return the event after its way through strict JSON text."""
    kind, data = to_json(event)
    return from_json(kind, json.loads(json.dumps(data, allow_nan=False)))


@pytest.mark.parametrize("event", every_kind(), ids=lambda event: type(event).__name__)
def test_every_kind_comes_back_equal(event: Event) -> None:
    again = travelled(event)
    assert again == event
    assert type(again) is type(event)


def test_samples_hold_every_kind() -> None:
    assert {type(event) for event in every_kind()} == set(get_args(Event))


def test_optional_fields_may_be_absent() -> None:
    for event in (
        TrialCreated(1.0, "0000", 0, 0, {}, 0),
        TrialPaused(1.0, "0000"),
        TrialEnded(1.0, "0000", TrialState.INFEASIBLE),
        RunEnded(1.0, "0000", 0, RunState.LOST, {}),
        SearchEnded(1.0, EndReason.MAX_TRIALS),
        SpaceGrew(1.0, None, ()),
        DeviceChanged(1.0, "GPU-1"),
        CheckpointsDropped(1.0, "0000", ()),
    ):
        assert travelled(event) == event


@pytest.mark.parametrize("number", [math.inf, -math.inf, 0.0, -0.0, 5e-324, 1e308, 0.1 + 0.2])
def test_floats_come_back_bit_for_bit(number: float) -> None:
    event = TrialEnded(
        number if 0 <= number < 1e10 else 1.0,
        "0000",
        TrialState.COMPLETED,
        score=number,
        metrics={"loss": number},
    )
    again = travelled(event)
    assert isinstance(again, TrialEnded)
    assert repr(again) == repr(event)


def test_nan_comes_back_as_nan() -> None:
    metrics = {"loss": math.nan}
    again = travelled(TrialEnded(1.0, "0000", TrialState.FAILED, math.nan, metrics=metrics))
    assert isinstance(again, TrialEnded)
    assert again.score is not None
    assert math.isnan(again.score)
    assert again.metrics is not None
    assert math.isnan(again.metrics["loss"])


def test_whole_numbers_reported_as_metrics_come_back_as_floats() -> None:
    again = travelled(Reported(1.0, "0000", 0, 0, {"count": 3}))
    assert isinstance(again, Reported)
    assert type(again.metrics["count"]) is float


@given(
    metrics=METRICS,
    step=st.integers(0, 2**63 - 1),
    at=st.floats(0, 1e10),
    trial_id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
)
def test_any_report_comes_back(
    metrics: dict[str, float], step: int, at: float, trial_id: str
) -> None:
    event = Reported(at, trial_id, 0, step, metrics)
    assert travelled(event) == event


@given(values=st.dictionaries(TEXT, SCALARS, max_size=5), budget=st.none() | BUDGETS)
def test_any_values_come_back_with_their_types(
    values: dict[str, bool | int | float | str | None], budget: Budget | None
) -> None:
    finite = {
        name: value
        for name, value in values.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    event = TrialCreated(1.0, "0000", 0, 0, finite, 0, budget)
    again = travelled(event)
    assert isinstance(again, TrialCreated)
    assert again == event
    assert {name: type(value) for name, value in again.values.items()} == {
        name: type(value) for name, value in finite.items()
    }


@given(kind=st.sampled_from(FailureKind), state=st.sampled_from(RunState), message=TEXT)
def test_any_end_of_a_run_comes_back(kind: FailureKind, state: RunState, message: str) -> None:
    event = RunEnded(1.0, "0000", 0, state, {}, None, kind, message=message)
    again = travelled(event)
    assert isinstance(again, RunEnded)
    assert again == event
    assert type(again.failure) is FailureKind
    assert type(again.state) is RunState


@given(
    seconds=st.floats(0, 1e9),
    peak=st.none() | st.integers(0, 2**40),
    energy=st.none() | st.floats(0, 1e12),
    is_estimated=st.booleans(),
)
def test_any_usage_comes_back(
    seconds: float, peak: int | None, energy: float | None, is_estimated: bool
) -> None:
    usage = Usage(seconds, peak, energy, is_estimated)
    again = travelled(RunEnded(1.0, "0000", 0, RunState.FAILED, {}, usage=usage))
    assert isinstance(again, RunEnded)
    assert again.usage == usage


def test_facts_of_an_older_version_know_of_no_gpu() -> None:
    kind, data = to_json(RunEnded(1.0, "0000", 0, RunState.FINISHED, {}))
    del data["usage"]
    assert from_json(kind, data) == RunEnded(1.0, "0000", 0, RunState.FINISHED, {})
    kind, data = to_json(RunStarted(1.0, "0000", 0, 0, 0, ("GPU-1",), None))
    del data["gpu_memory"], data["gpu_fraction"]
    assert from_json(kind, data) == RunStarted(1.0, "0000", 0, 0, 0, ("GPU-1",), None)


def test_conditional_spaces_come_back() -> None:
    space = (
        Choice("model", ["cnn", "mlp", None, True, 3]),
        Int("filters", 8, 64, step=2, sampling="log", conditions=(Condition("model", ("cnn",)),)),
        Float("dropout", 0.0, 0.5, step=0.1, conditions=(Condition("model", ("mlp",)),)),
        Fixed("none", None),
    )
    event = SpaceGrew(1.0, "0003", space, redeclared=("model",))
    assert travelled(event) == event


def test_reason_of_a_stop_stays_text_and_of_an_end_becomes_a_reason() -> None:
    again = travelled(SearchEnded(1.0, EndReason.TARGET))
    assert isinstance(again, SearchEnded)
    assert again.reason is EndReason.TARGET
    promoted = travelled(TrialPromoted(1.0, "0000", Budget(9, 3)))
    assert isinstance(promoted, TrialPromoted)
    assert type(promoted.budget) is Budget


def test_kind_of_a_newer_version_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="TrialCloned"):
        from_json("TrialCloned", {"at": 1.0})


def test_unknown_field_is_a_type_error() -> None:
    kind, data = to_json(TrialPaused(1.0, "0000"))
    with pytest.raises(TypeError, match="colour"):
        from_json(kind, {**data, "colour": 1})
