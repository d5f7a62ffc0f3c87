from __future__ import annotations

from pathlib import Path

import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.base import Finished, Met, Observed, Progressed, RunEvent, Started
from aiotune.executors.context import RunContext, StopRun, ending_of, perform, run_seed
from aiotune.space import Float
from aiotune.trial import Budget, FailureKind
from tests.support.runs import assign, of_kind


class ListChannel:
    """Keeps what is sent up."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self.stop_reason: str | None = None

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)


def context(directory: Path, **changes: object) -> tuple[RunContext, ListChannel]:
    channel = ListChannel()
    return RunContext(assign(directory, **changes), channel), channel


def test_steps_count_on_from_the_last_report(tmp_path: Path) -> None:
    run, channel = context(tmp_path)
    run.report(loss=3)
    run.report(7, loss=2)
    run.report(loss=1)
    steps = [event.step for event in of_kind(channel.events, Observed)]
    assert steps == [0, 7, 8]


@pytest.mark.parametrize("metrics", [{}, {"loss": "low"}, {"loss": None}])
def test_report_wants_numbers(tmp_path: Path, metrics: dict[str, float]) -> None:
    run, channel = context(tmp_path)
    with pytest.raises(FatalTypeError, match=r"report\(\)"):
        run.report(0, **metrics)
    assert of_kind(channel.events, Observed) == []


def test_names_go_up_once(tmp_path: Path) -> None:
    run, channel = context(tmp_path)
    run.hyperparameters.Float("rate", 0, 1)
    run.report(loss=1)
    run.report(loss=1)
    run.announce(is_complete=True)
    run.announce(is_complete=True)
    assert [met.is_complete for met in of_kind(channel.events, Met)] == [False, True]


def test_known_names_are_not_added_again(tmp_path: Path) -> None:
    run, channel = context(tmp_path, space=(Float("rate", 0.0, 1.0),), values={"rate": 0.5})
    run.hyperparameters.Float("rate", 0.0, 1.0)
    run.hyperparameters.Boolean("bias")
    run.announce(is_complete=True)
    (met,) = of_kind(channel.events, Met)
    assert [each.name for each in met.added] == ["bias"]
    assert met.values["rate"] == 0.5


def test_new_names_are_drawn_from_seed_and_stream(tmp_path: Path) -> None:
    def value(**changes: object) -> float:
        run, _ = context(tmp_path, **changes)
        return float(run.hyperparameters.Float("rate", 0, 1))

    assert value() == value(attempt=1, repeat=1)
    assert value() != value(stream=1)
    assert value() != value(seed=2)
    assert value(draws_new_names=False) == 0.0  # the default


def test_run_seed_belongs_to_the_run_alone(tmp_path: Path) -> None:
    seeds = {
        run_seed(assign(tmp_path, **changes))
        for changes in ({}, {"seed": 2}, {"stream": 1}, {"repeat": 1}, {"seed_attempt": 1})
    }
    assert len(seeds) == 5
    assert run_seed(assign(tmp_path, trial_id="9", run=4)) in seeds  # not of the names


def test_stop_unwinds_on_request(tmp_path: Path) -> None:
    run, channel = context(tmp_path)
    run.raise_if_stopped()
    assert not run.should_stop
    channel.stop_reason = "pruned"
    assert run.should_stop
    with pytest.raises(StopRun, match="pruned"):
        run.raise_if_stopped()


@pytest.mark.parametrize(("seconds", "signs"), [(None, 0), (1e6, 1), (1e-9, 3)])
def test_a_look_is_a_sign_of_progress_as_often_as_that_is_asked_for(
    tmp_path: Path, seconds: float | None, signs: int
) -> None:
    run, channel = context(tmp_path, stall_seconds=seconds)
    for _ in range(3):
        run.raise_if_stopped()
    assert len(of_kind(channel.events, Progressed)) == signs


def test_a_look_where_the_search_is_gone_is_told_so(tmp_path: Path) -> None:
    class Gone(ListChannel):
        def emit(self, event: RunEvent) -> None:
            self.stop_reason = "the search is gone"
            raise StopRun(self.stop_reason)

    assert RunContext(assign(tmp_path, stall_seconds=1.0), Gone()).should_stop


def test_late_stop_that_the_program_has_not_seen_leaves_its_result_whole(tmp_path: Path) -> None:
    run, channel = context(tmp_path)

    def program(run: RunContext) -> Finished:
        channel.stop_reason = "pruned"
        return Finished({"loss": 1.0})

    assert perform(program, run) == Finished({"loss": 1.0})


def test_events_of_a_performed_program(tmp_path: Path) -> None:
    run, channel = context(tmp_path)
    perform(lambda run: Finished(), run)
    assert [type(event) for event in channel.events] == [Started, Met]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception) -> None:
    ending = ending_of(error)
    assert not isinstance(ending, Finished)
    assert ending.kind is FailureKind.OUT_OF_MEMORY


def test_a_budget_is_among_the_values_but_no_part_of_the_point(tmp_path: Path) -> None:
    run, channel = context(tmp_path, budget=Budget(9, 3, bracket=2, rung=1), values={"rate": 0.5})
    hp = run.hyperparameters
    hp.Float("rate", 0.0, 1.0)
    assert hp.values == {
        "rate": 0.5,
        "tuner/epochs": 9,
        "tuner/initial_epoch": 3,
        "tuner/bracket": 2,
        "tuner/round": 1,
    }
    run.announce(is_complete=True)
    (met,) = of_kind(channel.events, Met)
    assert dict(met.values) == {"rate": 0.5}


def test_a_run_that_goes_on_counts_from_where_its_budget_begins(tmp_path: Path) -> None:
    run, channel = context(tmp_path, budget=Budget(9, 3), continues=True)
    assert (run.next_step, run.has_reported) == (3, False)
    run.report(loss=1.0)
    run.report(7, loss=0.5)
    assert [event.step for event in of_kind(channel.events, Observed)] == [3, 7]
    assert run.has_reported


@pytest.mark.parametrize("step", [0, 2])
def test_a_run_that_begins_again_is_told_what_to_do(tmp_path: Path, step: int) -> None:
    run, _ = context(tmp_path, budget=Budget(9, 3), continues=True)
    with pytest.raises(FatalValueError, match=r"tuner/initial_epoch.*checkpoint_dir"):
        run.report(step, loss=1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": Budget(9, 3)},  # nothing to go on from
        {"budget": Budget(9, 3, share=0.5), "continues": True},  # each share is trained anew
        {"continues": True},  # after a crash; it may know no way to go on
    ],
)
def test_other_runs_may_begin_anywhere(tmp_path: Path, changes: dict[str, object]) -> None:
    run, channel = context(tmp_path, **changes)
    run.report(loss=1.0)
    assert [event.step for event in of_kind(channel.events, Observed)] == [0]


def test_what_lacks_its_checkpoints_begins_earlier(tmp_path: Path) -> None:
    run, _ = context(tmp_path, budget=Budget(9, 3), continues=True)
    run.begin_at(0)
    run.report(loss=1.0)
    assert run.next_step == 1
