"""The tuner as its user meets it: accessors before, during and after a search, and a forgotten await."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiotune import HyperModel, HyperParameters, Objective, RandomSearch, Tuner
from aiotune.errors import FatalTypeError, FatalValueError, SearchNotAwaited
from aiotune.events import Reported
from aiotune.executors.launch import acquire_server, release_server
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.processes import OWN_MODULES
from tests.support import tuned
from tests.support.tuned import make


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


def paths_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# Before a search


def test_accessors_answer_before_any_search(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    assert tuner.trials == ()
    assert tuner.remaining_trials == 4
    assert tuner.get_best_trials(3) == []
    assert tuner.get_best_hyperparameters() == []
    assert tuner.get_best_models() == []
    assert tuner.objective == Objective("loss", "min")
    assert tuner.project_dir == str(tmp_path / "project")
    assert tuner.get_trial_dir("0001") == str(tmp_path / "project" / "trial_0001")


def test_making_a_tuner_writes_nothing(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path, overwrite=True)
    tuner.results_summary()
    assert list(tmp_path.iterdir()) == []


def test_summaries_before_any_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hp = HyperParameters()
    hp.Int("units", 8, 64, step=8)
    tuner = make(tuned.Tree, tmp_path, hyperparameters=hp)
    tuner.results_summary()
    tuner.search_space_summary()
    printed = capsys.readouterr().out
    assert "Results summary" in printed
    assert "Default search space size: 1" in printed
    assert "units (Int)" in printed


# After a search, here and in a later program


@pytest.fixture
async def searched(tmp_path: Path) -> tuned.Parabola:
    tuner = make(tuned.Parabola, tmp_path)
    await tuner.search(0.25)
    return tuner


async def test_accessors_answer_after_a_search(searched: tuned.Parabola) -> None:
    assert len(searched.trials) == 4
    assert searched.remaining_trials == 0
    best = searched.get_best_trials(3)
    scores = [trial.score or 0.0 for trial in best]
    assert scores == sorted(trial.score or 0.0 for trial in searched.trials)[:3]
    assert [hp.get("x") for hp in searched.get_best_hyperparameters(3)] == [
        trial.values["x"] for trial in best
    ]
    assert len(searched.get_best_trials(100)) == 4


async def test_a_later_program_reads_the_same(
    searched: tuned.Parabola, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = make(tuned.Parabola, tmp_path)
    assert later.trials == searched.trials
    assert later.remaining_trials == 0
    later.results_summary(1)
    later.search_space_summary()
    printed = capsys.readouterr().out
    best = searched.get_best_trials()[0]
    assert f"Trial {best.trial_id} summary" in printed
    assert f"x: {best.values['x']}" in printed
    assert f"Score: {best.score}" in printed
    assert "x (Float)" in printed
    assert [each.name for each in await later.discover()] == ["x"]


async def test_overwrite_begins_anew_and_leaves_other_files(
    searched: tuned.Parabola, tmp_path: Path
) -> None:
    (tmp_path / "project" / "mine.txt").write_text("keep")
    (tmp_path / "project" / "trial_0000" / "mine.txt").write_text("keep")
    anew = make(tuned.Parabola, tmp_path, overwrite=True)
    assert anew.trials == ()
    assert paths_in(tmp_path) == [
        "project",
        "project/mine.txt",
        "project/trial_0000",
        "project/trial_0000/mine.txt",
    ]


async def test_a_tuner_without_hypermodel_cannot_load_models(searched: tuned.Parabola) -> None:
    with pytest.raises(FatalValueError, match="override load_model"):
        searched.get_best_models()


async def test_models_can_be_loaded_by_an_override(tmp_path: Path) -> None:
    tuner = make(Loading, tmp_path)
    await tuner.search()
    best = tuner.get_best_trials(2)
    assert tuner.get_best_models(2) == [f"model of {trial.trial_id}" for trial in best]


class Loading(tuned.Dice):
    def load_model(self, trial: object) -> str:
        return f"model of {trial.trial_id}"  # type: ignore[attr-defined]


# During a search


async def test_accessors_answer_during_a_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = make(tuned.Patient, tmp_path)
    async with tuner.start() as search:
        async for event in search.events():
            if isinstance(event, Reported):
                break
        trial = next(each for each in tuner.trials if each.runs and each.runs[0].observations)
        assert trial.status == "RUNNING"
        assert trial.runs[0].observations[0].metrics == {"loss": trial.values["x"]}
        assert tuner.remaining_trials == 4 - len(tuner.trials)
        assert tuner.get_best_trials() == []
        tuner.results_summary()
        tuner.search_space_summary()
        assert "x (Float)" in capsys.readouterr().out
        # Another program's view of the same search, which is held by this one.
        assert make(tuned.Patient, tmp_path).trials[0].status == "RUNNING"
        search.request_stop()


# A forgotten await


async def test_a_forgotten_await_is_reported_by_the_next_accessor(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Python's own, that nobody reads
        tuner.search()
        gc.collect()
    for ask in (
        lambda: tuner.trials,
        lambda: tuner.remaining_trials,
        tuner.get_best_trials,
        tuner.get_best_hyperparameters,
        tuner.get_best_models,
        tuner.results_summary,
        tuner.search_space_summary,
    ):
        with pytest.raises(SearchNotAwaited, match=r"await tuner\.search.*asyncio\.run"):
            ask()
    assert len((await tuner.search()).trials) == 4
    assert len(tuner.trials) == 4


async def test_a_search_that_a_task_is_about_to_begin_is_not_forgotten(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    task = asyncio.create_task(tuner.search())
    assert tuner.trials == ()
    await task
    assert len(tuner.trials) == 4


async def test_a_task_cancelled_before_it_began_is_not_forgotten(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    task = asyncio.create_task(tuner.search())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tuner.trials == ()


def test_asyncio_run_takes_what_search_returns(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    assert len(asyncio.run(tuner.search()).trials) == 4


# Making one


def test_an_oracle_of_another_kind_is_refused() -> None:
    with pytest.raises(FatalTypeError, match="aiotune Oracle"):
        Tuner("random", lambda hp: None)  # type: ignore[arg-type]


def test_a_tuner_needs_something_to_run() -> None:
    with pytest.raises(FatalValueError, match="override run_trial"):
        RandomSearch(objective="loss")


def test_the_class_of_a_hypermodel_is_no_hypermodel() -> None:
    with pytest.raises(FatalTypeError, match="pass an instance"):
        RandomSearch(HyperModel, "loss")  # type: ignore[arg-type]


async def test_a_tuner_takes_an_oracle_of_ones_own(tmp_path: Path) -> None:
    class Counting(RandomSearchOracle):
        asked = 0

        def ask(self, history: object, number: int) -> object:  # type: ignore[override]
            Counting.asked += 1
            return super().ask(history, number)  # type: ignore[arg-type]

    tuner = ByOracle(Counting(objective="loss", max_trials=2, seed=0), directory=tmp_path, gpus=0)
    result = await tuner.search()
    assert len(result.trials) == 2
    assert Counting.asked >= 2
    assert tuner.project_name == "untitled_project"


class ByOracle(Tuner):
    def run_trial(self, trial: object) -> float:  # type: ignore[override]
        return float(trial.hyperparameters.Float("x", 0, 1))  # type: ignore[attr-defined]


# Seeds


async def test_seed_zero_is_a_seed(tmp_path: Path) -> None:
    one = await make(tuned.Tree, tmp_path, seed=0, project_name="one").search()
    two = await make(tuned.Tree, tmp_path, seed=0, project_name="two").search()
    other = await make(tuned.Tree, tmp_path, seed=1, project_name="other").search()
    assert tuned.points(one.trials) == tuned.points(two.trials)
    assert tuned.points(one.trials) != tuned.points(other.trials)


async def test_without_a_seed_the_project_keeps_the_one_that_was_drawn(tmp_path: Path) -> None:
    one = make(tuned.Tree, tmp_path, seed=None, max_trials=2)
    await one.search()
    again = make(tuned.Tree, tmp_path, seed=None, max_trials=3)
    await again.search()
    assert one.oracle.seed is not None
    assert again.oracle.seed == one.oracle.seed
