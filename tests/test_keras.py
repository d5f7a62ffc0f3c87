"""Keras in a process of its own: imported once there, and each program runs in a fork of that process."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aiotune.errors import FatalTypeError
from aiotune.frameworks.keras import TrainingHooks

ROOT = Path(__file__).parent.parent
RunProgram = Callable[[str], Any]

# JAX compiles for a second or more in each program, so it runs those that meet the backend: where training
# keeps its state, when callbacks are called, what weights and optimizers are made of.
on_every_backend = pytest.mark.parametrize("run", ["tensorflow", "torch", "jax"], indirect=True)


@contextmanager
def keras_host(
    backend: str, log: Path, programs: str = "tests.support.keras_programs"
) -> Iterator[subprocess.Popen[str]]:
    variables = {
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # The programs compile much alike.
        "JAX_COMPILATION_CACHE_DIR": str(log.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.keras_host", programs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=os.environ | variables,
        ) as host,
    ):
        yield host
        assert host.stdin is not None
        host.stdin.close()


@pytest.fixture(scope="module", params=["tensorflow", "torch"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunProgram]:
    """Call it with a program's name to get the program's result; each program runs once."""
    directory = tmp_path_factory.mktemp(request.param)
    with keras_host(request.param, directory / "host.log") as host:
        yield functools.cache(partial(run_program, host, directory))


def run_program(host: subprocess.Popen[str], directory: Path, program: str) -> Any:
    assert host.stdin is not None
    assert host.stdout is not None
    place = directory / program
    place.mkdir()
    host.stdin.write(json.dumps([program, str(place)]) + "\n")
    host.stdin.flush()
    answer = json.loads(host.stdout.readline() or '{"error": "the host died"}')
    assert "error" not in answer, answer["error"]
    return answer["result"]


# Training


@on_every_backend
def test_every_epoch_is_reported_as_keras_records_it(run: RunProgram) -> None:
    got = run("reports")
    assert got["epochs"] == [0, 1, 2]
    assert [step for step, _ in got["observed"]] == [0, 1, 2]
    for name, values in got["history"].items():
        assert [metrics[name] for _, metrics in got["observed"]] == values
    assert set(got["observed"][0][1]) == {"loss", "accuracy", "val_loss", "val_accuracy"}


@on_every_backend
def test_names_are_announced_as_complete_after_the_build(run: RunProgram) -> None:
    got = run("reports")
    assert got["complete"] == [True]
    assert got["names"] == ["units"]


@on_every_backend
def test_only_whole_files_are_left(run: RunProgram) -> None:
    assert run("reports")["files"] == ["best.json", "best.state"]


@on_every_backend
def test_the_best_epoch_is_kept_not_the_last(run: RunProgram) -> None:
    got = run("best_epoch")
    best = min(got["scores"])
    assert got["best"] == {"epoch": got["scores"].index(best), "score": best}
    assert got["best"]["epoch"] < 4
    assert got["reloaded"] == pytest.approx(best, abs=1e-6)


@on_every_backend
def test_the_optimizer_comes_back_too(run: RunProgram) -> None:
    got = run("optimizer_state")
    assert got == {"iterations": 4, "is_used": True}


@on_every_backend
def test_a_stop_in_training_ends_at_the_next_batch(run: RunProgram) -> None:
    got = run("stop_in_training")
    assert got["error"] == ["StopRun", "pruned"]
    assert got["steps"] == [0]  # no partial epoch
    assert got["seen"] == {"train": 4 + 3, "test": 4, "validations": 1}
    assert got["best"] == {"epoch": 0, "score": got["score"]}
    assert got["reloaded"] == pytest.approx(got["score"], abs=1e-6)
    assert got["files"] == ["best.json", "best.state"]


@on_every_backend
def test_a_stop_in_validation_ends_at_the_next_batch(run: RunProgram) -> None:
    got = run("stop_in_validation")
    assert got["error"] == ["StopRun", "pruned"]
    assert got["steps"] == [0]
    assert got["seen"] == {"train": 8, "test": 4 + 2, "validations": 2}
    assert got["best"]["epoch"] == 0


@on_every_backend
def test_each_batch_is_a_sign_of_progress_where_they_are_asked_for(run: RunProgram) -> None:
    validating, alone, unasked = run("signs_of_progress")
    assert alone > 3 * 4
    assert validating - alone == 3 * 2
    assert unasked == 0


def test_a_stop_before_training_comes_after_the_names(run: RunProgram) -> None:
    got = run("stop_before_training")
    assert got == {"error": ["StopRun", "duplicate"], "observed": [], "met": 1}


@on_every_backend
def test_a_stop_in_answer_to_a_report_begins_no_other_epoch(run: RunProgram) -> None:
    got = run("stop_after_report")
    assert got["error"] == ["StopRun", "pruned"]
    assert got["steps"] == [0]
    assert got["best"]["epoch"] == 0


def test_a_score_that_is_not_a_number_is_never_the_best(run: RunProgram) -> None:
    got = run("nan_first")
    assert got["steps"] == [0, 1]
    assert got["best"]["epoch"] == 1
    assert math.isfinite(got["best"]["score"])


def test_epochs_without_validation_are_reported_and_have_no_score(run: RunProgram) -> None:
    got = run("validation_every_second_epoch")
    assert got["steps"] == [0, 1, 2, 3]
    assert got["validated"] == [1, 3]
    scores = {int(step): score for step, score in got["scores"].items() if score is not None}
    best = min(scores, key=scores.__getitem__)
    assert got["best"] == {"epoch": best, "score": scores[best]}


@on_every_backend
def test_a_budget_sets_the_epochs_and_goes_on_from_the_checkpoint(run: RunProgram) -> None:
    got = run("budgets")
    first, continued, restarted = got["steps"]
    assert (first, continued) == ([0, 1], [2, 3])
    assert got["start"] == pytest.approx([got["before"]] * 2, abs=1e-6)
    assert (got["is_better"], got["same"]) == (True, True)  # a budget that is trained again
    assert restarted == [0, 1, 2, 3]  # the checkpoint is gone


def test_a_budget_also_rules_over_positional_epochs(run: RunProgram) -> None:
    got = run("positional_arguments")
    assert got["steps"] == [0, 1]
    assert got["twice"][0] == "FatalTypeError"
    assert "epochs" in got["twice"][1]


def test_another_attempt_begins_anew(run: RunProgram) -> None:
    assert run("restart_forgets")["epoch"] == 0


def test_steps_count_up_over_two_fits(run: RunProgram) -> None:
    assert run("two_fits") == [0, 1, 2, 3]


@on_every_backend
def test_hooks_are_called_in_training(run: RunProgram) -> None:
    got = run("hooks")
    assert got["epochs"] == [["epoch", "0000", epoch, True, True] for epoch in (0, 1)]
    assert got["extras"] == [0.5, 0.5]  # a hook may add metrics
    batches = [call for call in got["batches"] if call[0] != "epoch"]
    assert batches == [
        call for batch in range(4) for call in (["begin", batch], ["end", batch, True])
    ]


def test_metrics_that_are_no_single_number_are_left_out(run: RunProgram) -> None:
    assert run("vector_metric") == ["accuracy", "loss"]


# Ways to write a model


@on_every_backend
def test_models_of_every_kind_load_with_the_same_score(run: RunProgram) -> None:
    got = run("reload_architectures")
    assert set(got) == {"lazy", "subclassed", "batch_norm", "functional", "two_inputs"}
    for name, (best, again) in got.items():
        assert again == pytest.approx(best, abs=1e-6), name


def test_what_cannot_be_loaded_says_why(run: RunProgram) -> None:
    got = run("reload_errors")
    assert got["changed"][0] == "FatalValueError"
    assert "Did the build function change" in got["changed"][1]
    assert got["missing"][0] == "FatalRuntimeError"
    assert "no checkpoint" in got["missing"][1]


def test_a_fit_of_ones_own_may_return_a_number_or_a_dict(run: RunProgram) -> None:
    got = run("own_fit")
    assert got["number"] == got["last"]
    assert got["table"] == {"score": 1.5}
    assert got["best"] == {"epoch": 2, "score": None}  # not known in training: the last epoch


def test_names_met_in_fit_are_announced(run: RunProgram) -> None:
    got = run("own_fit")
    assert got["names"][0] == ["units"]
    assert got["names"][-1] == ["units", "batch_size"]
    assert got["complete"][0] is False


@on_every_backend
def test_a_fit_without_our_callbacks_still_leaves_weights(run: RunProgram) -> None:
    got = run("fit_without_callbacks")
    assert got["observed"] == []
    assert got["reloaded"] == pytest.approx(got["score"], abs=1e-6)


@on_every_backend
def test_a_loop_of_ones_own_reports_through_the_callbacks(run: RunProgram) -> None:
    got = run("own_loop")
    assert [step for step, _ in got["observed"]] == [0, 1, 2]
    assert [metrics["my_loss"] for _, metrics in got["observed"]] == pytest.approx(
        [1, 1 / 2, 1 / 3]
    )
    assert got["result"] == pytest.approx(1 / 3)
    assert got["best"] == {"epoch": 2, "score": None}


# Options


def test_callbacks_are_copied_for_each_run(run: RunProgram) -> None:
    got = run("callbacks")
    assert got["copies"] == [0, 3, False]
    assert got["from_factory"] == ["Locked", "TensorBoard"]
    assert got["log_dir"] == "logs/0000/execution0"


@pytest.mark.parametrize(
    ("case", "kind", "message"),
    [
        ("uncopyable", "FatalValueError", "callback Locked cannot be copied"),
        ("class", "FatalTypeError", "pass an instance: Counter(...)"),
        ("wrong", "FatalTypeError", "it has a str"),
    ],
)
def test_callbacks_that_cannot_be_used_are_named(
    run: RunProgram, case: str, kind: str, message: str
) -> None:
    error = run("callbacks")[case]
    assert error[0] == kind
    assert message in error[1]


@pytest.mark.parametrize(
    ("case", "remedy", "reported"),
    [
        ("no_validation", "pass validation_data or validation_split", 0),
        ("misspelt", 'Did you mean "val_accuracy"?', 0),
        ("unset", "Tell the tuner which of them counts", 0),
        ("several", '"auc" is not among', 0),
        ("validated_later", 'Did you mean "val_accuracy"?', 1),
        ("validated_at", 'Did you mean "val_accuracy"?', 2),
    ],
)
def test_an_objective_that_is_never_there_ends_the_first_epoch(
    run: RunProgram, case: str, remedy: str, reported: int
) -> None:
    kind, message, observed = run("objective_missing")[case]
    assert kind == "FatalValueError"
    assert "accuracy, loss" in message
    assert remedy in message
    assert observed == reported


def test_a_build_without_a_model_is_told_what_to_do(run: RunProgram) -> None:
    got = run("bad_builds")
    assert got["none"] == [
        "FatalTypeError",
        "build returned NoneType: did you forget `return model`?",
    ]
    assert got["layer"] == ["FatalTypeError", "build returned Dense: return a keras.Model"]
    assert got["not_compiled"][0] == "FatalValueError"
    assert "call model.compile" in got["not_compiled"][1]
    assert got["compiled_by_tuner"] == ["none", ""]


def test_discovery_raises_what_build_raises(run: RunProgram) -> None:
    got = run("bad_builds")
    assert got["discovered"][0] == "FatalTypeError"
    assert got["broken"] == ["TypeError", "my own bug"]


def test_a_model_that_is_too_large_is_infeasible(run: RunProgram) -> None:
    got = run("size_limit")
    message = "the model has 121 trainable parameters, more than max_model_size=120"
    assert got["big"] == ["InfeasibleTrialError", message]
    assert got["big_later"] == ["InfeasibleTrialError", message]
    assert got["fits"] == got["fits_later"] == ["none", ""]


def test_overrides_replace_their_part_of_compile_only(run: RunProgram) -> None:
    got = run("overrides")
    plain = got["none"]
    assert plain["is_halved"]
    assert got["optimizer"] == plain | {"optimizer": "SGD", "rate": 0.25}
    assert got["again"] == got["optimizer"]  # a new one for each model
    assert got["loss"]["loss"] == "mse"
    assert got["loss"]["run_eagerly"]
    assert got["metrics"]["metrics"] == ["absolute", "loss", "mae"]
    assert got["metrics"]["is_halved"]


@on_every_backend
def test_a_build_keeps_settings_and_draws_from_the_seed(run: RunProgram) -> None:
    got = run("sessions")
    assert got["policy"] == "mixed_bfloat16"
    assert got["same"]
    assert got["different"]
    assert got["names"] == [["dense", "dense_1"]] * 3


# Discovery


def test_every_scope_is_entered(run: RunProgram) -> None:
    got = run("discovery_scopes")
    assert got["found"] == ["deep 2", "depth 1", "flag 2", "kind 0", "units 0"]
    assert got["builds"] <= 1 + 4
    assert got["error"] == ["none", ""]


def test_discovery_builds_once_for_each_scope(run: RunProgram) -> None:
    got = run("discovery_many")
    assert len(got["found"]) == 12
    assert got["builds"] == 10  # the first scope is active by default


def test_scopes_with_ifs_inside_are_entered(run: RunProgram) -> None:
    assert run("discovery_ifs")["found"] == ["kind 0", "never 0", "of_a 0", "of_b 1", "units 0"]


def test_what_cannot_be_entered_ends_discovery_of_itself_only(run: RunProgram) -> None:
    got = run("discovery_impossible")
    assert got["error"] == ["none", ""]
    assert {"kind 0", "of_b 1", "of_c 1"} <= set(got["found"])


def test_a_point_that_is_too_large_tells_its_names(run: RunProgram) -> None:
    assert run("discovery_oversized") == ["units"]


def test_names_can_be_declared_beforehand(run: RunProgram) -> None:
    got = run("discovery_declared")
    assert got["declared"] == ["declared", "units"]
    assert got["rigid"] == []


# Without Keras


WITHOUT_KERAS = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            raise ModuleNotFoundError("No module named 'keras'", name="keras")

sys.meta_path.insert(0, Blocked())
from aiotune.errors import MissingFramework
from aiotune.frameworks.keras import require_keras
try:
    require_keras()
except MissingFramework as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("backend", "extra"), [("jax", "jax"), ("", "tensorflow"), ("torch", "torch")]
)
def test_a_missing_keras_names_the_extra(tmp_path: Path, backend: str, extra: str) -> None:
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": backend}
    if not backend:
        del environment["KERAS_BACKEND"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=True,
    )
    assert f'pip install "aiotune[{extra}]"' in done.stdout


def test_importing_the_modules_imports_no_framework() -> None:
    code = (
        "import sys, aiotune.frameworks.keras, aiotune.hypermodel;"
        "print({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


class Base:
    def on_epoch_end(self, run: Any, model: Any, epoch: int, logs: Any = None) -> None: ...


def test_only_overridden_hooks_are_called() -> None:
    class Mine(Base):
        def on_batch_end(self, run: Any, model: Any, batch: int, logs: Any = None) -> None: ...

    mine = Mine()
    assert TrainingHooks.overridden(mine, Base) == TrainingHooks(on_batch_end=mine.on_batch_end)


def test_an_async_hook_is_refused() -> None:
    class Mine(Base):
        async def on_epoch_end(  # type: ignore[override]
            self, run: Any, model: Any, epoch: int, logs: Any = None
        ) -> None: ...

    with pytest.raises(FatalTypeError, match=r"Mine\.on_epoch_end is async"):
        TrainingHooks.overridden(Mine(), Base)
