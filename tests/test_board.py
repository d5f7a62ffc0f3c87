"""What a display says of each fact, and of the moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiotune.events import (
    DeviceChanged,
    EndReason,
    Event,
    RunEnded,
    SearchEnded,
    SpaceGrew,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.observers.board import Board, number_text, time_text, values_text
from aiotune.trial import Budget, FailureKind, RunState, TrialState
from tests.support import facts
from tests.support.virtual_clock import VirtualClock

TRACEBACK = (
    'Traceback (most recent call last):\n  File "x.py"\nValueError: too wide\nIts log: /tmp/l'
)

MET = TrialMet(4.0, "0000", facts.SPACE, {"units": 64}, is_complete=True)


class Told:
    """A board, the history that it is told of, and every line that it gave."""

    def __init__(
        self, max_trials: int | None = 4, starting: str | None = None, output: str | None = None
    ) -> None:
        self.clock = VirtualClock()
        self.board = Board(
            Objective("val_loss", "min"), max_trials, self.clock, starting=starting, output=output
        )
        self.history = History()
        self.lines: list[str] = []

    def tell(self, *events: Event) -> list[str]:
        before = len(self.lines)
        for event in events:
            self.history.apply(event)
            self.lines += self.board.tell(event, self.history)
        return self.lines[before:]


def failed(number: int = 0) -> list[Event]:
    broken = RunEnded(
        8.0, f"{number:04d}", 0, RunState.FAILED, {}, None, FailureKind.USER_ERROR, True, TRACEBACK
    )
    over = TrialEnded(
        9.0,
        f"{number:04d}",
        TrialState.FAILED,
        failure=FailureKind.USER_ERROR,
        message=TRACEBACK,
    )
    return [facts.created(number), facts.started(number), broken, over]


def test_the_first_lines_say_what_is_searched_and_why_nothing_moves_yet() -> None:
    told = Told(starting="importing keras", output="results/trial_<id>/run-<n>.log")
    assert told.tell(facts.opened()) == [
        "search for val_loss (min), 4 trials",
        "output of the trials: results/trial_<id>/run-<n>.log",
        "starting: importing keras ...",
    ]
    told.tell(SpaceGrew(1.5, None, facts.SPACE), facts.created(), facts.started())
    assert told.board.view().starting == "importing keras"


@pytest.mark.parametrize(
    "news",
    [
        facts.reported(),
        facts.run_ended(),
        TrialMet(4.0, "0000", facts.SPACE, {"units": 64}, is_complete=True),
    ],
)
def test_the_first_news_of_user_code_ends_the_start(news: Event) -> None:
    told = Told(starting="importing keras")
    told.tell(facts.opened(), facts.created(), facts.started(), news)
    assert told.board.view().starting is None


def test_a_search_that_is_done_does_not_say_that_it_starts() -> None:
    told = Told(max_trials=1, starting="importing keras", output="results")
    told.history = History([facts.opened(), *facts.whole_trial()])
    assert told.tell(facts.opened()) == ["search for val_loss (min), 1 trials; 1 done before"]
    assert told.board.view().starting is None


def test_the_pace_leaves_the_start_out() -> None:
    told = Told(starting="importing keras")
    told.tell(facts.opened(), facts.created(), facts.started())
    told.clock.advance(15)
    told.tell(facts.reported())
    told.clock.advance(2)
    told.tell(facts.run_ended(), facts.ended())
    assert told.board.view().left_seconds == 6


def test_a_finished_trial_is_one_line_beside_the_best() -> None:
    told = Told()
    told.tell(facts.opened())
    assert told.tell(*facts.whole_trial(0)) == [
        "trial 0000  val_loss 0.2500 (best)  epoch 2  5.0 s  units=32 rate=0.01"
    ]
    worse = [*facts.whole_trial(1)[:-1], facts.ended(1, score=0.5)]
    assert told.tell(*worse) == [
        "trial 0001  val_loss 0.5000 (best 0.2500)  epoch 2  5.0 s  units=64 rate=0.01"
    ]


def test_a_paused_trial_is_a_line_and_another_one_after_its_promotion_only() -> None:
    told = Told()
    lines = told.tell(*facts.whole_trial()[:-1], TrialPaused(9.0, "0000", 0.25, 1))
    assert lines[-1].startswith("trial 0000  PAUSED  val_loss 0.2500 (best)  epoch 2")
    assert told.tell(facts.ended()) == []
    assert told.board.view().done == 1
    again = Told()
    again.tell(*facts.whole_trial()[:-1], TrialPaused(9.0, "0000", 0.25, 1))
    again.tell(TrialPromoted(9.0, "0000", Budget(9, 2)), facts.started(run=1))
    (line,) = again.tell(facts.run_ended(run=1), facts.ended(score=0.125))
    assert line.startswith("trial 0000  val_loss 0.1250 (best)")


def test_running_trials_show_their_last_epoch_and_value() -> None:
    told = Told()
    told.tell(facts.opened(), facts.created(), facts.started(), facts.reported(step=2, loss=0.1))
    (row,) = told.board.view().rows
    assert (row.name, row.step, row.score, row.device) == ("0000", "epoch 3", 0.2, "GPU-1")
    told.tell(facts.run_ended())
    assert told.board.view().rows == ()


def test_a_report_without_the_objective_keeps_the_last_value() -> None:
    told = Told()
    told.tell(facts.opened(), facts.created(), facts.started(), facts.reported(loss=0.1))
    told.tell(replace(facts.reported(step=1), metrics={"loss": 0.0}))
    (row,) = told.board.view().rows
    assert (row.step, row.score) == ("epoch 2", 0.2)


def test_the_first_traceback_is_shown_and_further_failures_are_a_line_each() -> None:
    told = Told()
    told.tell(facts.opened())
    first = told.tell(*failed(0))
    assert first == [
        "trial 0000 failed (user error):",
        TRACEBACK,
        "trial 0000  FAILED  ValueError: too wide  log: /tmp/l  5.0 s  units=32 rate=0.01",
    ]
    assert told.tell(*failed(1)) == [first[-1].replace("0000", "0001").replace("=32", "=64")]
    assert told.board.view().failed == 2


def test_the_pace_of_this_session_gives_the_time_that_is_left() -> None:
    told = Told(max_trials=5)
    told.tell(facts.opened(), *facts.whole_trial(0), SearchEnded(10.0, EndReason.STOPPED))
    again = Told(max_trials=5)
    again.history = told.history
    again.tell(facts.opened(20.0))
    assert again.lines == ["search for val_loss (min), 5 trials; 1 done before"]
    again.clock.advance(100)  # an import, say
    again.tell(facts.created(1), facts.started(1))
    assert again.board.view().left_seconds is None
    again.clock.advance(10)
    again.tell(facts.run_ended(1), facts.ended(1))
    view = again.board.view()
    assert (view.done, view.elapsed_seconds, view.left_seconds) == (2, 110, 30)
    assert view.best == "val_loss 0.2500  trial 0000  units=32 rate=0.01"


def test_duplicates_do_not_count() -> None:
    told = Told()
    told.tell(facts.opened(), facts.created(), facts.started())
    told.tell(facts.run_ended(state=RunState.CANCELLED))
    over = replace(facts.ended(status=TrialState.DUPLICATE, score=None), message="the same values")
    assert told.tell(over) == ["trial 0000  DUPLICATE  the same values  5.0 s  units=32 rate=0.01"]
    assert told.board.view().done == 0


@pytest.mark.parametrize(
    ("reason", "message", "text"),
    [
        (EndReason.MAX_TRIALS, None, "max_trials is reached"),
        (EndReason.EXHAUSTED, None, "every point of the space was tried"),
        (EndReason.STOPPED, None, "it was asked to stop"),
        (EndReason.TIME, "max_time of 3 s is over", "max_time of 3 s is over"),
        (EndReason.FAILED, "SearchFailed: 3 in a row\nTraceback", "SearchFailed: 3 in a row"),
    ],
)
def test_the_end_says_why(reason: EndReason, message: str | None, text: str) -> None:
    told = Told()
    told.tell(facts.opened(), *facts.whole_trial())
    assert told.tell(SearchEnded(10.0, reason, message)) == [
        f"search ended: {text}; 1 trial done, 0:00",
        "best: val_loss 0.2500  trial 0000  units=32 rate=0.01",
    ]
    assert told.board.close() == []


def test_a_search_that_was_cut_off_says_so() -> None:
    told = Told()
    told.tell(facts.opened())
    assert told.board.close() == [
        "search interrupted after 0 trials done, 0:00; search() goes on from here"
    ]


def test_two_ranges_of_one_name_are_told() -> None:
    told = Told()
    grew = SpaceGrew(1.5, None, facts.SPACE, redeclared=("units",))
    assert told.tell(facts.opened(), grew)[1:] == [
        "note: 'units' is declared with more than one range; the first one holds"
    ]


def test_every_kind_of_fact_is_understood() -> None:
    told = Told()
    *_, end, best, used = told.tell(*facts.every_kind())
    assert used.startswith("GPUs: ")
    assert end.startswith("search ended: asked for; 1 trial done")
    assert best.startswith("best: val_loss 0.2500  trial 0000")  # from when it was paused


def test_texts() -> None:
    assert [number_text(each) for each in (0.0, 0.98, -1.5, 1.25e-5, 2e7)] == [
        "0.0000",
        "0.9800",
        "-1.5000",
        "1.25e-05",
        "2e+07",
    ]
    assert [time_text(each) for each in (0.4, 59.6, 754, 3723)] == [
        "0:00",
        "1:00",
        "12:34",
        "1:02:03",
    ]
    values = {"tuner/epochs": 3, "a": 0.1234567, "b": "x" * 30, "c": True}
    assert values_text(values, 100) == f"a=0.1235 b={'x' * 19}… c=True"
    assert values_text(values, 10) == "a=0.1235 …"


def test_a_card_that_is_not_used_any_more_is_told() -> None:
    told = Told()
    told.tell(facts.opened())
    uuid = "GPU-12345678-abcd"
    assert told.tell(DeviceChanged(2.0, uuid, "Xid 79: it has fallen off the bus")) == [
        "GPU-12345678 is not used: Xid 79: it has fallen off the bus"
    ]
    assert told.tell(DeviceChanged(3.0, uuid)) == ["GPU-12345678 is used again"]


def test_a_lack_of_memory_on_a_part_of_a_card_is_no_failure() -> None:
    told = Told()
    out = RunEnded(8.0, "0000", 0, RunState.FAILED, {}, None, FailureKind.OUT_OF_MEMORY)
    share = replace(facts.started(), gpu_memory=2**30)
    assert told.tell(facts.opened(), facts.created(), share, out)[1:] == [
        "trial 0000 ran out of memory on a part of a GPU: tried again on a whole one"
    ]
    assert told.tell(*failed(1))[0] == "trial 0001 failed (user error):"


def test_the_last_line_tells_what_the_gpus_did() -> None:
    told = Told()
    used = replace(facts.run_ended(), usage=facts.USAGE)
    told.tell(facts.opened(), facts.created(), facts.started(), used, facts.ended())
    last = told.tell(SearchEnded(10.0, EndReason.GPU_HOURS, "max_gpu_hours=2 are used up"))
    assert last[0] == "search ended: max_gpu_hours=2 are used up; 1 trial done, 0:00"
    assert last[-1] == "GPUs: 0.025 GPU seconds, peak 1 GiB, 0.00208 Wh (estimated)"
