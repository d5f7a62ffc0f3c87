"""Bad input gets a clear error that says what to do, as early as possible, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune import HyperParameters, Limits, RandomSearch, Resources
from aiotune.errors import (
    FatalError,
    FatalRuntimeError,
    FatalTypeError,
    FatalValueError,
    MissingFramework,
    PayloadError,
    SearchFailed,
    StoreMismatch,
    StoreUnreadable,
    StoreUnwritable,
)
from aiotune.executors.launch import acquire_server, release_server
from aiotune.processes import OWN_MODULES
from aiotune.store.reader import read_facts
from aiotune.trial import FailureKind
from tests.support import tuned
from tests.support.programs import run_program
from tests.support.tuned import make


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


async def refusal(kind: type[FatalError], tuner: RandomSearch, *args: Any, **kwargs: Any) -> str:
    """Return the message of the error, of exactly this class, that ends the search."""
    with pytest.raises(kind) as caught:
        await tuner.search(*args, **kwargs)
    assert type(caught.value) is kind
    return str(caught.value)


# The tuner itself


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"objective": "quality"}, FatalValueError, 'aiotune.Objective("quality", direction='),
        ({"objective": 3}, FatalTypeError, "give a metric's name"),
        ({"max_trials": 0}, FatalValueError, "1 or more"),
        ({"max_trials": 2.5}, FatalTypeError, "a whole number"),
        ({"executions_per_trial": 0}, FatalValueError, "1 or more"),
        ({"max_concurrent_trials": 0}, FatalValueError, "1 or more"),
        ({"max_trial": 5}, FatalTypeError, "did you mean max_trials"),
        ({"distribution_strategy": object()}, FatalTypeError, "distribution_strategy=lambda: "),
        ({"logger": object()}, FatalValueError, "observers="),
        ({"tuner_id": "tuner1"}, FatalValueError, "max_concurrent_trials="),
        ({"mean": 3}, FatalTypeError, "takes no keyword"),
        ({"executor": "thread"}, FatalValueError, '"process" or "inline"'),
        ({"limits": 60}, FatalTypeError, "aiotune.Limits(max_time="),
        ({"resources": 2}, FatalTypeError, "aiotune.Resources(gpus="),
        ({"tune_new_entries": False, "allow_new_entries": False}, FatalValueError, "pass them"),
        ({"grace_seconds": 0}, FatalValueError, "above 0"),
    ],
)
def test_a_tuner_refuses_bad_options_at_once(
    tmp_path: Path, options: dict[str, Any], error: type[FatalError], says: str
) -> None:
    with pytest.raises(error) as caught:
        make(tuned.Parabola, tmp_path, **options)
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_time": 5, "trial_timeout": 10}, "has no effect beside"),
        ({"max_time": -1}, "above 0"),
        ({"patience": 0}, "above 0"),
        ({"max_epochs": "many"}, "a number is needed"),
    ],
)
def test_contradictory_limits_are_refused(limits: dict[str, Any], says: str) -> None:
    with pytest.raises((FatalValueError, FatalTypeError), match=says):
        Limits(**limits)


def test_contradictory_resources_are_refused() -> None:
    with pytest.raises(FatalValueError, match="contradicts itself"):
        Resources(gpus=0, gpu_memory="8GiB")


async def test_resources_that_no_device_has_are_refused_before_the_first_trial(
    tmp_path: Path,
) -> None:
    tuner = make(tuned.Parabola, tmp_path, gpus="auto", resources=Resources(gpus=64))
    assert "gpus=" in await refusal(aiotune.errors.DeviceError, tuner)
    assert tuner.trials == ()


async def test_several_trials_at_once_in_the_callers_thread_are_refused(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path, executor="inline", max_concurrent_trials=2)
    assert "has no effect" in await refusal(FatalValueError, tuner)


async def test_an_async_trial_cannot_go_to_a_process(tmp_path: Path) -> None:
    tuner = make(tuned.Endless, tmp_path, executor="process")
    assert "`def run_trial`" in await refusal(FatalValueError, tuner, [])


# The search space


def test_misspelt_and_upside_down_ranges_are_refused_where_they_are_written() -> None:
    hp: Any = HyperParameters()
    with pytest.raises(FatalTypeError, match="use min_value/max_value"):
        hp.Int("x", min=0, max=9)
    with pytest.raises(FatalTypeError, match="use min_value/max_value"):
        hp.Float("x", min=0, max=9)
    with pytest.raises(FatalValueError, match="min_value=9 is above max_value=0"):
        hp.Int("x", 9, 0)


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("min/max", FatalTypeError, "use min_value/max_value"),
        ("upside down", FatalValueError, "min_value=9 is above max_value=0"),
    ],
)
async def test_a_bad_range_ends_the_search_at_its_first_trial(
    tmp_path: Path, how: str, error: type[FatalError], says: str
) -> None:
    tuner = make(tuned.Misspelt, tmp_path, max_concurrent_trials=1)
    message = await refusal(error, tuner, how)
    assert says in message
    assert "run-0.log" in message
    assert len(tuner.trials) == 1


async def test_a_name_beyond_the_given_ones_is_refused_if_so_asked(tmp_path: Path) -> None:
    hp = HyperParameters()
    hp.Float("y", 0.0, 1.0)
    tuner = make(tuned.Parabola, tmp_path, hyperparameters=hp, allow_new_entries=False)
    message = await refusal(FatalRuntimeError, tuner)
    assert "declared x" in message
    assert "allow_new_entries=True" in message


# The arguments of search()


def test_tuner_keywords_given_to_search_are_refused_at_once(tmp_path: Path) -> None:
    tuner = make(RandomSearch, tmp_path, hypermodel=lambda hp: None)
    for keyword in ("max_trials", "objective", "executions_per_trial", "limits", "overwrite"):
        with pytest.raises(FatalTypeError, match=rf"{keyword} must be given to RandomSearch"):
            tuner.search([1], [2], **{keyword: 1})
        with pytest.raises(FatalTypeError, match="must be given to"):
            tuner.start([1], [2], **{keyword: 1})
    assert tuner.trials == ()


def test_arguments_that_run_trial_does_not_take_are_refused_at_once(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    with pytest.raises(FatalTypeError, match=r"max_trials must be given to Parabola"):
        tuner.search(max_trials=3)
    with pytest.raises(FatalTypeError, match=r"run_trial.*unexpected keyword argument 'shfit'"):
        tuner.search(shfit=3)
    with pytest.raises(FatalTypeError, match=r"run_trial.*too many positional"):
        tuner.search(1.0, 2.0)
    with pytest.raises(FatalTypeError, match=r"run_trial.*missing a required argument: 'how'"):
        make(tuned.Clumsy, tmp_path).start()
    assert tuner.trials == ()


async def test_an_argument_that_cannot_travel_is_named(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    message = await refusal(PayloadError, tuner, threading.Lock())
    assert message.startswith("argument 1 of search() cannot be sent to a child process")
    assert "lock" in message
    message = await refusal(PayloadError, tuner, shift=[1, (each for each in "ab")])
    assert "the argument shift= of search(), item 1" in message
    assert "generator" in message
    assert tuner.trials == ()


async def test_an_attribute_that_cannot_travel_is_named(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    tuner.connection = sqlite3.connect(":memory:")  # type: ignore[attr-defined]
    try:
        message = await refusal(PayloadError, tuner)
    finally:
        tuner.connection.close()  # type: ignore[attr-defined]
    assert "the tuner's attribute connection" in message
    assert "sqlite3.Connection" in message


# What user code does


async def test_an_error_of_user_code_is_in_the_trial_with_its_log(tmp_path: Path) -> None:
    tuner = make(tuned.Clumsy, tmp_path, max_consecutive_failed_trials=100)
    result = await tuner.search("error", first=2)
    assert [trial.status for trial in result.trials] == ["COMPLETED"] * 2 + ["FAILED"] * 2
    failed = result.trials[3]
    message = failed.message or ""
    assert failed.failure is FailureKind.USER_ERROR
    assert "Traceback (most recent call last)" in message
    assert "tuned.py" in message
    assert "ValueError: the cat ate it" in message
    assert f"Its log: {tuner.get_trial_dir('0003')}/run-0.log" in message


async def test_failures_in_a_row_end_the_search_and_name_what_they_share(tmp_path: Path) -> None:
    tuner = make(tuned.Clumsy, tmp_path, max_trials=20, max_concurrent_trials=1)
    message = await refusal(SearchFailed, tuner, "error", first=2)
    assert "3 trials failed in a row (max_consecutive_failed_trials=3)" in message
    assert "They share one error: ValueError: the cat ate it" in message
    assert "Traceback" in message
    assert [trial.status for trial in tuner.trials] == ["COMPLETED"] * 2 + ["FAILED"] * 3
    mended = await tuner.search("error", first=100)
    assert len(mended.trials) == 20
    assert [trial.status for trial in mended.trials[5:]] == ["COMPLETED"] * 15


async def test_a_child_that_exits_is_a_crash(tmp_path: Path) -> None:
    tuner = make(tuned.Clumsy, tmp_path, max_trials=20)
    message = await refusal(SearchFailed, tuner, "exit")
    assert "exited with code 3" in message
    assert {trial.failure for trial in tuner.trials if trial.is_over} == {FailureKind.CRASH}


async def test_failed_trial_error_is_not_retried_but_others_are(tmp_path: Path) -> None:
    for how, runs in (("failed", 1), ("infeasible", 1), ("error", 3), ("nan", 3)):
        tuner = make(
            tuned.Clumsy, tmp_path, project_name=how, max_trials=1, max_retries_per_trial=2
        )
        (trial,) = (await tuner.search(how)).trials
        assert len(trial.runs) == runs, how


async def test_a_fatal_error_of_user_code_ends_the_search(tmp_path: Path) -> None:
    tuner = make(tuned.Clumsy, tmp_path)
    message = await refusal(FatalRuntimeError, tuner, "fatal")
    assert "no disk at all" in message
    assert "run-0.log" in message


async def test_a_nan_score_fails_the_trial_and_says_so(tmp_path: Path) -> None:
    result = await make(tuned.Clumsy, tmp_path).search("nan", first=2)
    assert result.reason is aiotune.EndReason.MAX_TRIALS
    for trial in result.trials[2:]:
        assert trial.failure is FailureKind.NAN
        assert "loss = nan" in (trial.message or "")
        assert "run-0.log" in (trial.message or "")
    assert result.best_score is not None
    assert result.best_score == min(trial.score or 0.0 for trial in result.trials[:2])


async def test_an_absent_objective_names_the_metrics_that_are_there(tmp_path: Path) -> None:
    message = await refusal(FatalValueError, make(tuned.Clumsy, tmp_path), "other metrics")
    assert "the objective 'loss' is not among the metrics: accuracy, losses" in message
    assert "Did you mean 'losses'?" in message
    tuner = make(tuned.Clumsy, tmp_path, project_name="reports")
    message = await refusal(SearchFailed, tuner, "reports only")
    assert "the objective 'loss' is not among the metrics: accuracy" in message


async def test_a_trial_that_returns_nothing_says_what_to_return(tmp_path: Path) -> None:
    message = await refusal(FatalTypeError, make(tuned.Clumsy, tmp_path), "none")
    assert "returned None" in message
    assert "Return a number, a dict" in message


# The project's directory


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", Path("/proc/nowhere")):
        message = await refusal(StoreUnwritable, make(tuned.Parabola, directory))
        assert str(directory) in message
        assert "choose" in message


def test_a_disk_that_is_full_ends_the_search_and_keeps_what_was_written(tmp_path: Path) -> None:
    printed = run_program(
        """
        import asyncio, json, resource, sys
        from pathlib import Path
        from aiotune.errors import StoreUnwritable
        from tests.support import tuned

        def fill(event, history):
            # The file-size limit stands for the disk: what grows beyond it is refused.
            if type(event).__name__ == "TrialEnded" and len(history.ended_trials()) == 3:
                store = Path(sys.argv[1], "project", "study.db-wal")
                resource.setrlimit(resource.RLIMIT_FSIZE, (store.stat().st_size,) * 2)

        tuner = tuned.make(tuned.Parabola, Path(sys.argv[1]), max_trials=50, observers=[fill])
        try:
            asyncio.run(tuner.search(verbose=0))
        except StoreUnwritable as error:
            print(json.dumps([str(error), sum(each.is_over for each in tuner.trials)]))
        """,
        tmp_path,
    )
    message, ended = json.loads(printed)
    assert "study.db" in message
    assert "free space" in message or "no space" in message
    kept = make(tuned.Parabola, tmp_path)
    assert sum(trial.status == "COMPLETED" for trial in kept.trials) == ended >= 3


def damage(store: Path, how: str) -> None:
    match how:
        case "no database":
            store.write_text("my diary, not for reading by databases" * 100)
        case "another program's":
            with sqlite3.connect(store) as connection:
                connection.execute("CREATE TABLE diary (day TEXT)")
            connection.close()
        case "newer":
            with sqlite3.connect(store) as connection:
                connection.execute("PRAGMA user_version = 999")
            connection.close()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no database", "is no database: choose another project_name"),
        ("another program's", "another program's database: choose another project_name"),
    ],
)
async def test_a_strange_file_in_place_of_the_store_is_left_alone(
    tmp_path: Path, how: str, says: str
) -> None:
    store = tmp_path / "project" / "study.db"
    store.parent.mkdir()
    damage(store, how)
    before = store.read_bytes()
    tuner = make(tuned.Parabola, tmp_path)
    assert says in await refusal(StoreUnreadable, tuner)
    asks: list[Callable[[], object]] = [lambda: tuner.trials, tuner.results_summary]
    for ask in asks:
        with pytest.raises(StoreUnreadable):
            ask()
    with pytest.raises(StoreUnreadable, match="overwrite=True does not delete it"):
        make(tuned.Parabola, tmp_path, overwrite=True)
    assert store.read_bytes() == before


async def test_a_newer_store_is_refused_and_can_be_overwritten(tmp_path: Path) -> None:
    await make(tuned.Parabola, tmp_path, max_trials=1).search()
    damage(tmp_path / "project" / "study.db", "newer")
    message = await refusal(StoreUnreadable, make(tuned.Parabola, tmp_path))
    assert "schema 999" in message
    assert "upgrade aiotune" in message
    anew = make(tuned.Parabola, tmp_path, overwrite=True)
    assert len((await anew.search()).trials) == 4


# What was searched before


async def test_another_objective_is_refused_with_both(tmp_path: Path) -> None:
    await make(tuned.Parabola, tmp_path, max_trials=1).search()
    for other in ("val_loss", aiotune.Objective("loss", "max")):
        message = await refusal(StoreMismatch, make(tuned.Parabola, tmp_path, objective=other))
        assert "stored:" in message
        assert "declared:" in message
        assert "'direction': 'min'" in message
        assert "overwrite=True" in message
        assert "project_name" in message
    assert len(make(tuned.Parabola, tmp_path).trials) == 1
    anew = make(
        tuned.Parabola, tmp_path, objective=aiotune.Objective("loss", "max"), overwrite=True
    )
    assert len((await anew.search()).trials) == 4


async def test_another_range_is_refused_with_both_and_the_stored_one_goes_on(
    tmp_path: Path,
) -> None:
    tuner = make(tuned.Misspelt, tmp_path, max_trials=2)
    await tuner.search("0-9")
    message = await refusal(StoreMismatch, make(tuned.Misspelt, tmp_path), "0-99")
    assert "x: stored Int(0 to 9), declared Int(0 to 99)" in message
    assert "overwrite=True" in message
    again = await make(tuned.Misspelt, tmp_path).search("0-9")
    assert len(again.trials) == 4
    assert again.trials[:2] == tuner.trials


async def test_another_given_range_is_refused_before_the_first_trial(tmp_path: Path) -> None:
    await make(tuned.Misspelt, tmp_path, max_trials=1).search("0-9")
    hp = HyperParameters()
    hp.Int("x", 0, 99)
    tuner = make(tuned.Misspelt, tmp_path, hyperparameters=hp)
    assert "x: stored Int(0 to 9), declared Int(0 to 99)" in await refusal(
        StoreMismatch, tuner, "0-9"
    )
    assert len(tuner.trials) == 1


async def test_new_names_are_fine(tmp_path: Path) -> None:
    await make(tuned.Parabola, tmp_path, max_trials=2).search()
    result = await make(tuned.Wider, tmp_path).search()
    assert [sorted(trial.values) for trial in result.trials] == [["x"]] * 2 + [["x", "y"]] * 2


async def test_nothing_is_written_to_a_project_that_is_refused(tmp_path: Path) -> None:
    await make(tuned.Parabola, tmp_path, max_trials=1).search()
    facts = read_facts(tmp_path / "project" / "study.db")
    await refusal(StoreMismatch, make(tuned.Parabola, tmp_path, objective="val_loss"))
    assert read_facts(tmp_path / "project" / "study.db") == facts


# Frameworks


async def test_a_missing_framework_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'raise ModuleNotFoundError("No module named \'keras\'", name="keras")'
    (tmp_path / "keras.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    # With another module, lest a fork server of other tests be shared that has found the real Keras.
    tuner = make(tuned.Parabola, tmp_path, preload=["keras", "json"])
    message = await refusal(MissingFramework, tuner)
    assert 'pip install "aiotune[' in message
    assert all(not trial.is_over for trial in tuner.trials)


async def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path, preload=["no_such_module"])
    message = await refusal(aiotune.errors.ExecutorError, tuner)
    assert "'no_such_module' cannot be imported" in message
