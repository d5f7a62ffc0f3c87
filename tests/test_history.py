from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotune.errors import FatalRuntimeError
from aiotune.events import (
    DeviceChanged,
    EndReason,
    Event,
    RunEnded,
    SearchEnded,
    SpaceGrew,
    StopRequested,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.history import History
from aiotune.space import Float, Int
from aiotune.trial import (
    Budget,
    FailureKind,
    Observation,
    RunState,
    StopCause,
    TrialState,
)
from tests.support.facts import (
    RATE,
    SPACE,
    UNITS,
    USAGE,
    created,
    ended,
    every_kind,
    opened,
    reported,
    run_ended,
    started,
    whole_trial,
)


def test_empty_history() -> None:
    history = History()
    assert (history.length, history.next_number, history.counted()) == (0, 0, 0)
    assert history.ended_trials() == history.open_trials() == []
    with pytest.raises(KeyError, match="none yet"):
        history.trial("0000")


def test_whole_trial_is_folded() -> None:
    trial = History([opened(), *whole_trial()]).trial("0000")
    (run,) = trial.runs
    assert (trial.state, trial.score, trial.best_step, trial.ended_at) == (
        TrialState.COMPLETED,
        0.25,
        1,
        9.0,
    )
    assert trial.metrics == {"val_loss": 0.25}
    assert (run.state, run.started_at, run.ended_at, run.best_step) == (
        RunState.FINISHED,
        3.0,
        8.0,
        1,
    )
    assert list(run.observations) == [
        Observation(0, {"loss": 0.5, "val_loss": 1.0}),
        Observation(1, {"loss": 0.125, "val_loss": 0.25}),
    ]


def test_every_kind_is_counted_and_folded() -> None:
    facts = every_kind()
    history = History(facts)
    trial = history.numbered(0)
    assert history.length == len(facts)
    assert history.opened == facts[0]
    assert history.ended == facts[-1]
    assert (trial.state, trial.failure, trial.message) == (
        TrialState.FAILED,
        FailureKind.CRASH,
        "SIGKILL",
    )
    assert trial.budget == Budget(9, initial_epoch=3)
    assert [run.state for run in trial.runs] == [RunState.STOPPED, RunState.FAILED]
    last = trial.runs[-1]
    assert (last.usage, last.gpu_memory, last.gpu_fraction) == (USAGE, 2**31, 0.25)
    assert trial.usage == USAGE


def test_changes_of_devices_are_counted_and_change_no_trial() -> None:
    history = History([opened(), *whole_trial()])
    before = dict(history.trials)
    history.apply(DeviceChanged(9.5, "GPU-1", "Xid 79"))
    history.apply(DeviceChanged(9.6, "GPU-1"))
    assert dict(history.trials) == before
    assert history.length == 9


def test_it_knows_when_the_session_before_was_left() -> None:
    history = History([opened(1.0), *whole_trial()])
    assert history.left_at is None
    history.apply(opened(100.0))
    assert history.left_at == 9.0
    history.apply(created(1, at=101.0))
    assert history.left_at == 9.0


@given(split=st.integers(0, len(every_kind())))
def test_facts_may_come_at_once_or_one_by_one(split: int) -> None:
    facts = every_kind()
    whole, resumed = History(facts), History(facts[:split])
    for fact in facts[split:]:
        resumed.apply(fact)
    assert dict(resumed.trials) == dict(whole.trials)
    assert resumed.space == whole.space
    assert resumed.ended_trials() == whole.ended_trials()
    assert resumed.open_trials() == whole.open_trials()
    assert resumed.length == whole.length


def test_trial_moves_with_its_runs() -> None:
    history = History([opened(), created()])
    steps: list[tuple[Event, TrialState]] = [
        (started(), TrialState.RUNNING),
        (StopRequested(5.0, "0000", 0, StopCause.LIMIT), TrialState.RUNNING),
        (run_ended(state=RunState.LOST), TrialState.RUNNING),
        (started(run=1), TrialState.RUNNING),
        (run_ended(run=1), TrialState.RUNNING),
        (TrialPaused(8.0, "0000", 0.5, 2), TrialState.PAUSED),
        (TrialPromoted(8.0, "0000", Budget(9, 3)), TrialState.QUEUED),
        (started(run=2), TrialState.RUNNING),
        (run_ended(run=2), TrialState.RUNNING),
        (ended(), TrialState.COMPLETED),
    ]
    for fact, state in steps:
        history.apply(fact)
        assert history.trial("0000").state is state
    assert history.trial("0000").budget == Budget(9, 3)


def test_paused_trial_has_its_score_so_far() -> None:
    history = History([created(), started(), run_ended(), TrialPaused(8.0, "0000", 0.5, 2)])
    trial = history.trial("0000")
    assert (trial.score, trial.best_step, trial.is_over) == (0.5, 2, False)


def test_observations_of_two_runs_stay_apart() -> None:
    history = History([created(), started(run=0), started(run=1)])
    history.apply(reported(run=1, step=0, loss=1.0))
    history.apply(reported(run=0, step=0, loss=2.0))
    losses = [
        [each.metrics["loss"] for each in run.observations] for run in history.trial("0000").runs
    ]
    assert losses == [[2.0], [1.0]]


def test_open_and_ended_trials_are_in_the_order_of_asking_and_of_ending() -> None:
    facts = [created(number) for number in range(4)]
    history = History([*facts, *(started(number) for number in range(4)), ended(2), ended(0)])
    assert [trial.number for trial in history.open_trials()] == [1, 3]
    assert [trial.number for trial in history.ended_trials()] == [2, 0]
    assert [trial.number for trial in history.trials.values()] == [0, 1, 2, 3]
    assert [trial.number for trial in history.ended_trials(after=1)] == [0]
    assert history.ended_trials(after=2) == []


def test_a_trial_knows_how_many_facts_came_before_its_end() -> None:
    """As it knows how many its oracle had seen: so the one tells whether it could go by the other."""
    facts = [*whole_trial(0), *whole_trial(1)]
    history = History(facts)
    for trial in history.trials.values():
        assert trial.ended_after is not None
        assert facts[trial.ended_after] == ended(trial.number)


def test_duplicates_do_not_count() -> None:
    history = History([created(0), started(0), created(1), started(1)])
    assert history.counted() == 2
    history.apply(ended(1, TrialState.DUPLICATE, score=None))
    assert (history.counted(), history.next_number) == (1, 2)


def test_trials_in_flight_are_unsettled_until_all_their_names_are_known() -> None:
    def met(number: int, *, is_complete: bool) -> TrialMet:
        return TrialMet(3.5, f"{number:04d}", (UNITS,), {"units": 64}, is_complete=is_complete)

    def unsettled() -> list[int]:
        return [trial.number for trial in history.unsettled_trials()]

    history = History([created(0), created(1), created(2), started(0), started(1), started(2)])
    history.apply(met(0, is_complete=True))
    history.apply(met(1, is_complete=False))
    assert unsettled() == [1, 2]
    history.apply(ended(2, TrialState.FAILED, score=None))
    history.apply(run_ended(1))
    history.apply(TrialPaused(9.0, "0001", 0.5, 0))
    assert unsettled() == []
    history.apply(TrialPromoted(10.0, "0001", Budget(2)))
    assert unsettled() == [1]
    before = history.snapshot()
    history.apply(met(1, is_complete=True))
    assert [trial.number for trial in history.met_trials()] == [0, 1, 1]
    assert [trial.number for trial in history.met_trials(after=2)] == [1]
    assert unsettled() == []
    assert [trial.number for trial in before.unsettled_trials()] == [1]
    assert before.met_trials(after=2) == []


def test_who_keeps_up_is_given_each_trial_once_as_it_is_now() -> None:
    history = History([created(0), created(1), started(1), started(0)])
    assert [trial.number for trial in history.moved_trials()] == [0, 1]
    read = history.move_count
    assert (read, history.moved_trials(after=read)) == (4, [])
    history.apply(ended(1))
    history.apply(created(2))
    moved = history.moved_trials(after=read)
    assert [(each.number, each.state) for each in moved] == [
        (1, TrialState.COMPLETED),
        (2, TrialState.QUEUED),
    ]
    assert [move.trial.number for move in history.moves(after=read)] == [1, 2]


def test_space_grows_and_the_first_declaration_holds() -> None:
    wider = Int("units", 32, 512, step=32)
    extra = Float("momentum", 0.0, 0.9)
    history = History(
        [
            SpaceGrew(1.0, None, SPACE),
            SpaceGrew(2.0, "0000", (wider, extra), redeclared=("units",)),
        ]
    )
    assert list(history.space) == [*SPACE, extra]
    assert history.redeclared == {"units"}


def test_what_the_program_met_replaces_what_was_proposed() -> None:
    history = History([created(), started()])
    values = {"units": 64}
    history.apply(TrialMet(3.5, "0000", (UNITS,), values, is_complete=True))
    trial = history.trial("0000")
    assert (trial.space, trial.values, trial.is_path_complete) == ((UNITS,), values, True)
    assert RATE.name not in trial.hyperparameters.values


def test_search_that_is_opened_again_is_not_over() -> None:
    end = SearchEnded(9.0, EndReason.MAX_TRIALS)
    history = History([opened(1.0), end])
    assert history.ended == end
    again = opened(20.0)
    history.apply(again)
    assert history.ended is None
    assert history.opened == again


@pytest.mark.parametrize(
    "fact",
    [ended(), started(run=1), TrialPaused(10.0, "0000")],
    ids=lambda fact: type(fact).__name__,
)
def test_trial_that_is_over_never_changes_its_state(fact: Event) -> None:
    history = History(whole_trial())
    before = history.trial("0000")
    with pytest.raises(FatalRuntimeError, match="trial 0000 cannot go from COMPLETED"):
        history.apply(fact)
    assert history.trial("0000") == before


def test_run_ends_once() -> None:
    history = History([created(), started(), run_ended()])
    with pytest.raises(FatalRuntimeError, match="run 0 cannot go from FINISHED to LOST"):
        history.apply(RunEnded(9.0, "0000", 0, RunState.LOST, {}))


def test_unknown_trial_names_the_known_ones() -> None:
    history = History([created(0), created(1)])
    with pytest.raises(KeyError, match=r"'0009'.*0000 to 0001"):
        history.trial("0009")


def test_views_do_not_let_a_reader_write() -> None:
    history = History([created(0)])
    with pytest.raises(TypeError):
        history.trials["0000"] = history.trial("0000")  # type: ignore[index]
    history.open_trials().clear()
    assert len(history.open_trials()) == 1


@given(split=st.integers(0, len(every_kind())))
def test_a_snapshot_is_the_history_as_it_was(split: int) -> None:
    facts = every_kind()
    history, then = History(facts[:split]), History(facts[:split])
    snapshot = history.snapshot()
    for fact in facts[split:]:
        history.apply(fact)
    assert snapshot.length == split
    assert dict(snapshot.trials) == dict(then.trials)
    assert snapshot.open_trials() == then.open_trials()
    assert snapshot.ended_trials() == then.ended_trials()
    assert (snapshot.space, snapshot.opened, snapshot.ended) == (
        then.space,
        then.opened,
        then.ended,
    )
    assert (snapshot.next_number, snapshot.counted()) == (then.next_number, then.counted())


def test_the_observations_of_a_snapshot_do_not_grow() -> None:
    history = History([*whole_trial(0), created(1), started(1), reported(1, step=0)])
    snapshot = history.snapshot()
    history.apply(reported(1, step=1))
    seen, now = snapshot.numbered(1).runs[0], history.numbered(1).runs[0]
    assert [each.step for each in seen.observations] == [0]
    assert [each.step for each in now.observations] == [0, 1]
    assert snapshot.numbered(0) is history.numbered(0)  # what is over is shared


def test_a_snapshot_that_takes_in_facts_changes_no_other_view() -> None:
    history = History([created(0), started(0), reported(0, step=0)])
    snapshot = history.snapshot()
    for fact in (reported(0, step=1), run_ended(0), ended(0), created(1)):
        snapshot.apply(fact)
    (run,) = history.numbered(0).runs
    assert (history.length, history.next_number, len(run.observations)) == (3, 1, 1)
    assert history.open_trials() == [history.numbered(0)]


def test_a_history_and_its_snapshots_are_of_one_lineage() -> None:
    facts = whole_trial()
    history = History(facts)
    lineage = history.lineage
    snapshot = history.snapshot()
    history.apply(created(1))
    later = history.snapshot()
    assert lineage is history.lineage is snapshot.lineage is later.lineage
    assert snapshot.snapshot().lineage is lineage
    assert (
        History(facts).lineage is not lineage
    )  # of the same facts, but another search for all one knows
    # Each holds the earlier ones: what was derived from those wants only what came since.
    assert dict(snapshot.trials).items() <= dict(later.trials).items()
    assert later.ended_trials()[: len(snapshot.ended_trials())] == snapshot.ended_trials()
