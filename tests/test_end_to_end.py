"""Whole searches: what they leave behind, that they can be repeated and resumed, and Keras models."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiotune import EndReason, Objective, RandomSearch, SearchResult, ThresholdPruner, Trial
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.events import StopRequested, TrialEnded
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.processes import OWN_MODULES
from aiotune.trial import RunState
from tests.support import keras_search, tuned
from tests.support.keras_search import EPOCHS
from tests.support.meeting import meeting
from tests.support.programs import run_program
from tests.support.tuned import make

FRAMEWORKS = {"tensorflow", "keras", "jax", "torch"}
FILES = re.compile(  # those that layout.py names
    r"study\.db|study\.lock|server\.log|trial_(\d{4}|discovery)/(run-\d+\.log|repeat-\d+/.+)"
)


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


def files_of(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}


# The same search again


async def test_the_number_of_slots_changes_no_point(tmp_path: Path) -> None:
    found = [
        await make(
            tuned.Tree,
            tmp_path,
            max_trials=12,
            max_concurrent_trials=slots,
            project_name=f"{slots}",
        ).search()
        for slots in (1, 2, 4)
    ]
    assert len(tuned.points(found[0].trials)) == 12
    assert len({len(point) for point in tuned.points(found[0].trials)}) > 2  # paths differ
    for other in found[1:]:
        assert tuned.points(other.trials) == tuned.points(found[0].trials)
        assert sorted(t.score or 0 for t in other.trials) == sorted(
            t.score or 0 for t in found[0].trials
        )


async def test_resuming_changes_no_point(tmp_path: Path) -> None:
    whole = await make(tuned.Tree, tmp_path, max_trials=12, project_name="whole").search()
    for first, slots in ((1, 4), (5, 1), (7, 3)):
        name = f"{first}-{slots}"
        await make(tuned.Tree, tmp_path, max_trials=first, project_name=name).search()
        rest = make(
            tuned.Tree, tmp_path, max_trials=12, project_name=name, max_concurrent_trials=slots
        )
        assert tuned.points((await rest.search()).trials) == tuned.points(whole.trials)


async def test_resuming_after_an_interruption_changes_no_point(tmp_path: Path) -> None:
    whole = await make(tuned.Tree, tmp_path, max_trials=12, project_name="whole").search()
    async with make(tuned.Tree, tmp_path, max_trials=12).start() as search:
        async for event in search.events():
            if isinstance(event, TrialEnded) and event.trial_id >= "0003":
                break
    cut = make(tuned.Tree, tmp_path, max_trials=12)
    before = {trial.trial_id: trial for trial in cut.trials if trial.is_over}
    assert 3 <= len(before) < 12
    result = await cut.search()
    assert tuned.points(result.trials) == tuned.points(whole.trials)
    assert {trial.trial_id: trial for trial in result.trials if trial.trial_id in before} == before


async def test_chance_in_a_run_is_its_own_and_can_be_repeated(tmp_path: Path) -> None:
    def scores(result: SearchResult) -> dict[tuple[str, int], float]:
        return {
            (trial.trial_id, run.repeat): run.metrics["loss"]
            for trial in result.trials
            for run in trial.runs
        }

    options = {"executions_per_trial": 2, "max_trials": 3}
    one = scores(await make(tuned.Dice, tmp_path, project_name="one", **options).search())
    two = scores(await make(tuned.Dice, tmp_path, project_name="two", **options).search())
    other = scores(await make(tuned.Dice, tmp_path, project_name="3", seed=2, **options).search())
    assert one == two
    assert len(set(one.values())) == 6
    assert not set(one.values()) & set(other.values())


# What a search leaves


async def test_only_files_of_the_layout_are_left(tmp_path: Path) -> None:
    tuner = make(tuned.Once, tmp_path, max_retries_per_trial=1)
    await tuner.search()
    left = files_of(tmp_path / "project")
    assert {name for name in left if not FILES.fullmatch(name)} == set()
    assert {"study.db", "trial_0003/run-1.log"} <= left
    assert os.listdir(tmp_path) == ["project"]
    make(tuned.Once, tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == []


def test_the_caller_is_as_it_was_and_nothing_of_the_search_lives(tmp_path: Path) -> None:
    printed = run_program(
        """
        import asyncio, gc, json, os, signal, sys, threading, warnings
        from pathlib import Path
        import psutil
        from aiotune.errors import SearchFailed
        from tests.support import tuned

        warnings.simplefilter("error")
        directory = Path(sys.argv[1])
        handler = lambda *_: None
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGCHLD, handler)

        def world():
            handlers = [signal.getsignal(number) for number in signal.valid_signals()]
            return handlers, dict(os.environ), os.getcwd(), list(sys.path), signal.getitimer(0)

        def files():
            return len(os.listdir("/proc/self/fd"))

        before, seen = world(), []

        async def searches(name):
            tasks = len(asyncio.all_tasks())
            inside = world()  # asyncio.run itself handles SIGINT
            look = lambda event, history: seen.append(world() == inside)
            def make(kind, what):
                return tuned.make(kind, directory, project_name=name + what, observers=[look])
            await make(tuned.Parabola, "whole").search(verbose=0)
            try:
                await make(tuned.Clumsy, "failed").search("exit", verbose=0)
            except SearchFailed:
                pass
            async with make(tuned.Deaf, "left").start() as search:
                async for event in search.events():
                    if type(event).__name__ == "Reported":
                        break
            async with make(tuned.Patient, "stopped").start() as search:
                search.request_stop()
                await search.result()
            return len(asyncio.all_tasks()) - tasks

        asyncio.run(searches("first"))
        gc.collect()
        open_before = files()
        tasks = asyncio.run(searches("second"))
        gc.collect()
        print(json.dumps({
            "tasks": tasks,
            "files": files() - open_before,
            "children": len(psutil.Process().children(recursive=True)),
            "threads": [each.name for each in threading.enumerate() if not each.daemon],
            "world": world() == before,
            "events": len(seen),
            "world_during": all(seen),
            "frameworks": sorted({"tensorflow", "keras", "jax", "torch"} & set(sys.modules)),
        }))
        """,
        tmp_path,
    )
    left = json.loads(printed.splitlines()[-1])
    assert left.pop("events") > 20
    assert left == {
        "tasks": 0,
        "files": 0,
        "children": 0,
        "threads": ["MainThread"],
        "world": True,
        "world_during": True,
        "frameworks": [],
    }


def rows(project: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(project / "study.db")) as connection:
        return connection.execute(query).fetchall()


def assert_tables_agree(project: Path, trials: tuple[Trial, ...]) -> None:
    """Compare what SQL shows with the trials that were folded from the facts."""
    query = "SELECT trial_id, number, state, score, best_step, vals, failure, message FROM trials"
    told = [(*row[:5], json.loads(row[5]), *row[6:]) for row in rows(project, query)]
    assert sorted(told, key=str) == sorted(
        (
            (t.trial_id, t.number, t.status, t.score, t.best_step, t.values, t.failure, t.message)
            for t in trials
        ),
        key=str,
    )
    query = "SELECT trial_id, run, repeat, attempt, state, log, failure, message FROM runs"
    assert sorted(rows(project, query), key=str) == sorted(
        (
            (t.trial_id, r.index, r.repeat, r.attempt, r.state, r.log, r.failure, r.message)
            for t in trials
            for r in t.runs
        ),
        key=str,
    )
    query = "SELECT trial_id, run, step, name, value FROM metrics"
    assert sorted(rows(project, query)) == sorted(
        (t.trial_id, r.index, each.step, name, value)
        for t in trials
        for r in t.runs
        for each in r.observations
        for name, value in each.metrics.items()
    )


async def test_the_tables_for_sql_agree_with_the_trials(tmp_path: Path) -> None:
    for kind, options, args in (
        (tuned.Parabola, {}, (0.5,)),
        (tuned.Once, {"max_retries_per_trial": 1}, ()),
        (tuned.Clumsy, {}, ("infeasible", 2)),
        (tuned.Coin, {"max_trials": None}, ()),
    ):
        tuner = make(kind, tmp_path, project_name=kind.__name__, **options)
        result = await tuner.search(*args)
        assert_tables_agree(Path(tuner.project_dir), result.trials)


# Keras


def keras_tuner(
    directory: Path, hypermodel: Any = keras_search.build, **changes: Any
) -> RandomSearch:
    options = {"objective": "val_loss", "max_trials": 2, "hypermodel": hypermodel} | changes
    return make(RandomSearch, directory, **options)


def fit_arguments(**changes: Any) -> dict[str, Any]:
    x, y, xv, yv = keras_search.data()
    return {"x": x, "y": y, "validation_data": (xv, yv), "epochs": EPOCHS, "verbose": 0} | changes


@pytest.fixture(scope="module")
def searched(
    keras_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RandomSearch, SearchResult]:
    """A whole search of a build function."""
    tuner = keras_tuner(tmp_path_factory.mktemp("searched"), max_trials=3)
    return tuner, asyncio.run(tuner.search(**fit_arguments()))


def test_every_epoch_of_every_trial_is_in_the_store(
    searched: tuple[RandomSearch, SearchResult],
) -> None:
    tuner, result = searched
    assert [trial.status for trial in result.trials] == ["COMPLETED"] * 3
    for trial in result.trials:
        (run,) = trial.runs
        assert [each.step for each in run.observations] == list(range(EPOCHS))
        for each in run.observations:
            assert set(each.metrics) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        losses = [each.metrics["val_loss"] for each in run.observations]
        assert trial.score == min(losses)
        assert trial.best_step == losses.index(min(losses))
    assert_tables_agree(Path(tuner.project_dir), result.trials)
    count = rows(Path(tuner.project_dir), "SELECT count(*) FROM metrics WHERE name = 'val_loss'")
    assert count == [(3 * EPOCHS,)]


def test_the_space_has_what_the_builds_declared(
    searched: tuple[RandomSearch, SearchResult], capsys: pytest.CaptureFixture[str]
) -> None:
    tuner, result = searched
    for trial in result.trials:
        layers = trial.values["layers"]
        assert isinstance(layers, int)
        expected = {"layers", "dropout", "learning_rate", *(f"units_{i}" for i in range(layers))}
        assert set(trial.values) - {"rate"} == expected
        assert ("rate" in trial.values) == trial.values["dropout"]
    tuner.search_space_summary()
    assert "learning_rate (Float)" in capsys.readouterr().out


def test_a_keras_search_leaves_only_files_of_the_layout(
    searched: tuple[RandomSearch, SearchResult],
) -> None:
    tuner, result = searched
    left = files_of(Path(tuner.project_dir))
    assert {name for name in left if not FILES.fullmatch(name)} == set()
    for trial in result.trials:
        assert any(name.startswith(f"trial_{trial.trial_id}/repeat-0/") for name in left)


def test_no_framework_is_loaded_here(searched: tuple[RandomSearch, SearchResult]) -> None:
    assert searched[1].best_score is not None
    assert not FRAMEWORKS & set(sys.modules)


async def test_a_fit_of_ones_own_returns_a_number_or_a_dict(
    keras_server: Server, tmp_path: Path
) -> None:
    number = keras_tuner(tmp_path, keras_search.Dense(), project_name="number")
    best = Objective("best", "min")
    metrics = keras_tuner(tmp_path, keras_search.DenseDict(), project_name="dict", objective=best)
    first, second = await asyncio.gather(
        number.search(**fit_arguments()), metrics.search(**fit_arguments())
    )
    for trial in first.trials:
        reported = [each.metrics["val_loss"] for each in trial.runs[0].observations]
        assert trial.score == pytest.approx(min(reported))
        assert trial.values["batch_size"] in (8, 16)
    for trial in second.trials:
        assert trial.metrics["batch"] == trial.values["batch_size"]
        assert trial.score == trial.metrics["best"]


async def test_a_stop_ends_a_fit_at_the_next_batch(keras_server: Server, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    async with meeting() as place:
        callbacks = keras_search.slow_callbacks(str(diary), place.port)
        arguments = fit_arguments(callbacks=callbacks, epochs=5, batch_size=8)
        async with keras_tuner(tmp_path, max_trials=1).start(**arguments) as search:
            child = await place.arrival()
            search.request_stop()
            async for event in search.events():
                if isinstance(event, StopRequested):
                    break
            child.write(b".")  # the request is with the child; it may go on
            await child.drain()
            result = await search.result()
            child.close()
    assert result.reason is EndReason.STOPPED
    (run,) = result.trials[0].runs
    assert run.state is RunState.CANCELLED
    assert [each.step for each in run.observations] == [0]
    lines = diary.read_text().splitlines()
    assert lines[-1] == "train 1 2"
    assert [line for line in lines if line.startswith(("validate", "end"))] == [
        "validate 0",
        "end 0",
    ]


async def test_a_pruner_ends_a_fit_at_the_next_batch_and_its_best_epoch_stays(
    keras_server: Server, tmp_path: Path
) -> None:
    """The request is with the child at its third batch, at the latest: there it waits for it."""
    diary = tmp_path / "diary"
    async with meeting() as place:

        async def let_go() -> None:
            child = await place.arrival()
            child.write(b".")
            await child.drain()
            child.close()

        callbacks = keras_search.slow_callbacks(str(diary), place.port)
        arguments = fit_arguments(callbacks=callbacks, epochs=5, batch_size=8)
        tuner = keras_tuner(tmp_path, max_trials=1, pruner=ThresholdPruner(upper=0.0))
        async with tuner.start(**arguments) as search, anyio.create_task_group() as tasks:
            async for event in search.events():
                if isinstance(event, StopRequested):
                    break
            tasks.start_soon(let_go)
            result = await search.result()
            tasks.cancel_scope.cancel()
    (trial,) = result.trials
    (run,) = trial.runs
    assert (trial.status, run.state, trial.best_step) == ("PRUNED", RunState.STOPPED, 0)
    (report,) = run.observations
    assert trial.metrics == report.metrics
    lines = diary.read_text().splitlines()
    assert "trained 1 2" not in lines
    assert not [line for line in lines if line.startswith("train 1") and line > "train 1 2"]
    kept = tmp_path / "project" / "trial_0000" / "repeat-0" / "best.json"
    assert json.loads(kept.read_text())["epoch"] == 0


async def test_the_space_is_known_before_the_search(
    keras_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = keras_tuner(tmp_path)
    tuner.search_space_summary()
    printed = capsys.readouterr().out
    for name in ("layers (Int)", "units_0 (Int)", "dropout (Boolean)", "learning_rate (Float)"):
        assert name in printed
    assert {"layers", "units_0"} <= {each.name for each in await tuner.discover()}
    assert tuner.trials == ()
    assert not FRAMEWORKS & set(sys.modules)


async def test_a_build_that_returns_no_model_is_refused_before_the_first_trial(
    keras_server: Server, tmp_path: Path
) -> None:
    tuner = keras_tuner(tmp_path, keras_search.build_nothing)
    with pytest.raises(FatalTypeError, match="did you forget `return model`"):
        await tuner.search(**fit_arguments())
    assert tuner.trials == ()


async def test_an_objective_that_keras_does_not_log_names_what_it_does(
    keras_server: Server, tmp_path: Path
) -> None:
    tuner = keras_tuner(tmp_path, objective=Objective("val_acc", "max"), max_concurrent_trials=1)
    with pytest.raises(FatalValueError, match="accuracy, loss, val_accuracy, val_loss") as caught:
        await tuner.search(**fit_arguments())
    assert 'Did you mean "val_accuracy"?' in str(caught.value)


async def test_a_misspelt_argument_of_fit_ends_the_search_before_the_first_trial(
    keras_server: Server, tmp_path: Path
) -> None:
    tuner = keras_tuner(tmp_path, max_concurrent_trials=1)
    with pytest.raises(FatalTypeError, match=r"model\.fit: .*'epoch'.* it takes .*epochs"):
        await tuner.search(**fit_arguments(epoch=5))
    assert tuner.trials == ()


def test_a_program_without_keras_searches_and_then_loads_the_best_model(tmp_path: Path) -> None:
    """The search imports no framework; the model, loaded in the program itself, has its score again."""
    printed = run_program(
        """
        import asyncio, json, sys
        import aiotune
        from aiotune.executors.launch import acquire_server, release_server
        from aiotune.processes import modules_to_preload
        from aiotune.settings import Settings
        from tests.support import keras_search

        x, y, xv, yv = keras_search.data()
        tuner = aiotune.RandomSearch(
            keras_search.build, "val_loss", max_trials=3, seed=3, directory=sys.argv[1], gpus=0
        )
        # One import for all that follows.
        server = acquire_server(modules_to_preload(tuner, (), Settings()))
        search = tuner.search(
            x, y, validation_data=(xv, yv), epochs=keras_search.EPOCHS, verbose=0
        )
        result = asyncio.run(search)
        best = tuner.get_best_hyperparameters()[0]
        path = asyncio.run(tuner.retrain(best, x, y, epochs=keras_search.EPOCHS, verbose=0))
        told = asyncio.run(tuner.evaluate(path, xv, yv, verbose=0))
        release_server(server)
        loaded = sorted({"tensorflow", "keras", "jax", "torch"} & set(sys.modules))
        model = tuner.hypermodel.build(best)
        model.load_weights(path)
        again = model.evaluate(xv, yv, verbose=0, return_dict=True)
        inline = aiotune.RandomSearch(
            keras_search.build, "val_loss", seed=3, directory=sys.argv[1], gpus=0, executor="inline"
        )
        here = asyncio.run(inline.retrain(best, x, y, epochs=keras_search.EPOCHS, verbose=0))
        try:
            asyncio.run(inline.retrain(best, x[1:], y, verbose=0))
        except aiotune.errors.FatalRuntimeError as error:
            refused = str(error)
        retrained = [told, again, asyncio.run(inline.evaluate(here, xv, yv, verbose=0))]
        left = [path.name for path in here.parent.iterdir()]
        scores = [
            [model.evaluate(xv, yv, verbose=0)[0], trial.score]
            for model, trial in zip(tuner.get_best_models(2), tuner.get_best_trials(2))
        ]
        print(json.dumps({
            "reason": result.reason,
            "loaded": loaded,
            "scores": scores,
            "retrained": retrained,
            "left": sorted(left),
            "refused": refused,
            "directories": sorted(each.name for each in here.parents[1].glob("retrained_*")),
        }))
        """,
        tmp_path,
    )
    told = json.loads(printed.splitlines()[-1])
    assert told["reason"] == "max_trials"
    assert told["loaded"] == []
    child, loaded, inline = told["retrained"]
    assert child == pytest.approx(loaded, abs=1e-6)
    assert child == pytest.approx(inline, abs=1e-6)
    assert told["left"] == ["build.json", "hyperparameters.json", "model.keras"]
    assert told["directories"] == ["retrained_0", "retrained_1"]
    assert "Data cardinality is ambiguous" in told["refused"]
    assert "Its log" not in told["refused"]
    assert len(told["scores"]) == 2
    for again, score in told["scores"]:
        assert again == pytest.approx(score, abs=1e-6)
