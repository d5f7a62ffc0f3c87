"""The examples, run as a user runs them.

Those at the top in a process of their own; but those that train in child processes only, the guide, and those
with images one after the other in one process that has imported Keras (`support/example_host.py`). That one is
started first: it imports while the others run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiotune.events import EndReason
from aiotune.history import History
from aiotune.store.reader import read_facts
from aiotune.trial import RunState, Trial, TrialState

RunHosted = Callable[..., str]

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DEADLINE_SECONDS = 400.0  # far above what any of them takes; reaching it is a failure


def run_example(name: str, directory: Path, *arguments: str) -> str:
    """Run the example in `directory` and return what it printed; AssertionError if it fails."""
    return run_script(EXAMPLES / name, directory, *arguments)


def run_script(script: Path, directory: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def example_host(directory: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        (directory / "host.log").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.example_host", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as host,
    ):
        yield host
        assert host.stdin is not None
        host.stdin.close()


@pytest.fixture(scope="module", autouse=True)
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunHosted]:
    """Call it with an example, a directory and arguments; it returns what the example printed."""
    directory = tmp_path_factory.mktemp("examples")
    with example_host(directory) as host:

        def run(name: str, where: Path, *arguments: str) -> str:
            assert host.stdin is not None
            assert host.stdout is not None
            host.stdin.write(json.dumps([str(EXAMPLES / name), str(where), arguments]) + "\n")
            host.stdin.flush()
            line = host.stdout.readline()
            assert line, f"the host died:\n{(directory / 'host.log').read_text()}"
            answer = json.loads(line)
            assert "error" not in answer, answer["error"]
            shown: str = answer["shown"]
            return shown

        yield run


def trials_of(directory: Path, project: str) -> list[Trial]:
    """Return the trials of a search, all of which ended well."""
    history = History(read_facts(directory / "results" / project / "study.db"))
    assert history.ended is not None
    assert history.ended.reason in {EndReason.MAX_TRIALS, EndReason.EXHAUSTED}
    trials = list(history.trials.values())
    assert all(trial.state is TrialState.COMPLETED for trial in trials)
    assert all(run.state is RunState.FINISHED for trial in trials for run in trial.runs)
    return trials


def scores_of(trials: list[Trial]) -> list[float]:
    scores = [trial.score for trial in trials if trial.score is not None]
    assert len(scores) == len(trials)
    return scores


def numbers(pattern: str, printed: str) -> list[float]:
    """Return the number of each line that has the pattern."""
    return [float(each) for each in re.findall(pattern, printed, re.M)]


def test_no_example_is_forgotten() -> None:
    """Each is named in the README beside them, and in a test below."""
    files = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")}
    listed = re.findall(r"\]\((\S+\.py)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(files)
    text = Path(__file__).read_text()
    parts = {"images/folder.py", "images/model.py"}
    assert [name for name in files - parts if f'"{name}"' not in text] == []


def test_service(tmp_path: Path) -> None:
    printed = run_example("service.py", tmp_path)
    assert re.search(r"trial 0000 is COMPLETED, score \d", printed)
    assert re.search(r"running: \('\d{4}'", printed)
    assert re.search(r"\d+ trials, best loss 0\.03\d+ in trial \d{4}; ended by stopped", printed)
    assert "the service answered meanwhile: True" in printed


def test_retrain(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("retrain.py", tmp_path)
    assert "the service says: {" in printed
    assert re.search(r"^trained: .*/results/service/retrained_0/model\.keras'", printed, re.M)
    assert re.search(r"^on new data: loss 0\.\d+, accuracy 0\.\d+$", printed, re.M)


def test_function(tmp_path: Path) -> None:
    printed = run_example("function.py", tmp_path)
    assert re.search(
        r"^6 trials, best energy 0\.\d+ in trial \d{4}; ended by max_trials", printed, re.M
    )
    assert re.search(r"^20 trials, best seconds 0\.\d+ in trial \d{4}", printed, re.M)
    assert re.search(r"^\{'batch': \d+, 'compress': True\}", printed, re.M)


def test_optuna_bridge(tmp_path: Path) -> None:
    printed = run_example("optuna_bridge.py", tmp_path)
    assert re.search(
        r"^16 trials, best error 0\.0\d+ in trial \d{4}; ended by max_trials", printed, re.M
    )
    assert re.search(r"^best of 16 trials of the study: \{'model': '\w+', ", printed, re.M)
    importances = numbers(r"^  \w+: (\d\.\d\d)$", printed)
    assert len(importances) == 4
    assert sum(importances) == pytest.approx(1.0, abs=0.03)


def test_population(tmp_path: Path) -> None:
    out = run_example("population.py", tmp_path)
    height = re.search(r"39 trials, best height (\S+) in trial", out)
    replayed = re.search(r"replayed: (\S+)", out)
    assert height is not None
    assert replayed is not None
    assert float(height[1]) < 0.001
    assert float(replayed[1]) == pytest.approx(float(height[1]), rel=0.05)
    rates = [float(each) for each in re.findall(r"\{'rate': (\S+)\}", out)]
    assert rates == sorted(rates, reverse=True)
    assert len(rates) > 1


def test_pareto(tmp_path: Path) -> None:
    """From the most accurate on, each forest is smaller, and less accurate."""
    printed = run_example("pareto.py", tmp_path)
    accuracies = numbers(r"^  \d{4}  accuracy (\S+) ", printed)
    nodes = numbers(r"^  \d{4}  accuracy .* nodes +(\d+) ", printed)
    assert f"30 trials, {len(nodes)} on the Pareto front; ended by max_trials" in printed
    assert len(nodes) >= 5
    assert nodes == sorted(set(nodes), reverse=True)
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.9
    (volume,) = numbers(r"^hypervolume (\d+)$", printed)
    assert 4000 < volume < 5000


def test_sklearn_pipeline(tmp_path: Path) -> None:
    printed = run_example("sklearn_pipeline.py", tmp_path)
    found = r"^8 trials, best roc_auc 0\.99\d+ ± 0\.00\d+ in trial \d{4}; ended by max_trials"
    assert re.search(found, printed, re.M)
    assert len(re.findall(r"^  \d{4}  (?:[01]\.\d{4} ){5} \{'model'", printed, re.M)) == 3
    assert re.search(r"^fitted on all 426 rows: accuracy 0\.9\d+ on 143 others", printed, re.M)


def test_cross_validation(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("cross_validation.py", tmp_path)
    assert re.search(r"^2 trials, best val_loss 0\.\d+ ± 0\.\d+ in trial \d{4}", printed, re.M)
    accuracies = re.findall(r"^  \d{4}  loss \S+ ± \S+  accuracy (\S+)  \{", printed, re.M)
    assert len(accuracies) == 2
    assert max(map(float, accuracies)) > 0.85


def test_the_script_that_the_readme_leads_with(tmp_path: Path) -> None:
    """Its first code block, word for word but for the number of trials and epochs."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    script = block[1]
    for full, short in {"max_trials=20": "max_trials=2", "epochs=5": "epochs=1"}.items():
        assert full in script
        script = script.replace(full, short)
    (tmp_path / "script.py").write_text(script)
    printed = run_script(tmp_path / "script.py", tmp_path)
    assert re.search(r"^2 trials, best val_accuracy 0\.\d+ in trial 000\d", printed, re.M)
    assert re.search(r"^\{'layers': \d", printed, re.M)


@pytest.mark.slow
def test_quickstart(tmp_path: Path) -> None:
    """20 trials of 15 epochs, all in the store, and the accuracies that the README's demo promises."""
    printed = run_example("quickstart.py", tmp_path, "--fresh")
    history = History(read_facts(tmp_path / ".demo" / "digits" / "study.db"))
    assert history.ended is not None
    assert history.ended.reason is EndReason.MAX_TRIALS
    assert len(history.trials) == 20
    for trial in history.trials.values():
        assert trial.state is TrialState.COMPLETED
        (run,) = trial.runs
        assert [each.step for each in run.observations] == list(range(15))
        assert all("val_accuracy" in each.metrics for each in run.observations)
    assert max(trial.score or 0.0 for trial in history.trials.values()) >= 0.985
    accuracy = re.search(r"test accuracy (\d\.\d+) on 200 others", printed)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.96


# The guide


def test_architecture(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/architecture.py", tmp_path)
    trials = trials_of(tmp_path, "architecture")
    assert [len(trial.runs) for trial in trials] == [2, 2, 2]
    assert max(scores_of(trials)) > 0.9
    for trial in trials:
        layers = trial.values["layers"]
        assert isinstance(layers, int)
        units = {name for name in trial.values if name.startswith("units_")}
        assert units == {f"units_{layer}" for layer in range(layers)}
    assert "\nDefault search space size: 5\n" in printed
    assert "\nShowing 2 best trials\n" in printed
    accuracies = numbers(r": (\d\.\d+) of the test images are right$", printed)
    assert len(accuracies) == 3
    assert min(accuracies) > 0.85


def test_training(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/training.py", tmp_path)
    trials = trials_of(tmp_path, "training")
    names = {"units", "batch_size", "shuffle", "weight_of_malignant"}
    assert [set(trial.values) for trial in trials] == [names] * 4
    assert min(scores_of(trials)) < 0.15
    (again,) = numbers(r"^Trained once more: val_accuracy (\S+)$", printed)
    assert again > 0.9


def test_preprocessing(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/preprocessing.py", tmp_path)
    trials = trials_of(tmp_path, "preprocessing")
    assert [set(trial.values) for trial in trials] == [{"components", "standardize"}] * 6
    assert {trial.values["standardize"] for trial in trials} == {True, False}
    assert max(scores_of(trials)) > 0.9
    listed = numbers(r"^val_accuracy (\S+)  \{", printed)
    assert listed == sorted((round(score, 3) for score in scores_of(trials)), reverse=True)


def test_metrics(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/metrics.py", tmp_path)
    names = {"mean_absolute_error": 0.6, "near": 0.5}  # the mean alone would do as well as that
    built_in, custom = trials_of(tmp_path, "built_in"), trials_of(tmp_path, "custom")
    assert len(built_in) == len(custom) == 3
    assert min(scores_of(built_in)) < names["mean_absolute_error"]
    assert max(scores_of(custom)) > names["near"]
    for trial in (*built_in, *custom):
        for each in trial.runs[0].observations:
            assert {*names, *(f"val_{name}" for name in names)} < set(each.metrics)
    best = numbers(r"^3 trials, best \w+ (\S+) in trial", printed)
    found = [min(scores_of(built_in)), max(scores_of(custom))]
    assert best == pytest.approx(found, rel=1e-5)


def test_returns(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/returns.py", tmp_path)
    plain, several = trials_of(tmp_path, "float"), trials_of(tmp_path, "dict")
    assert len(plain) == len(several) == 3
    points = [sorted(str(trial.values) for trial in trials) for trials in (plain, several)]
    assert points[0] == points[1]  # they have the same seed
    for trial in several:
        metrics = trial.final_metrics
        assert trial.score == 5 * metrics["missed"] + metrics["false_alarms"]
    assert min(scores_of(several)) < 80  # an alarm for each would cost 172
    assert re.search(r"^\d+ missed, \d+ false alarms$", printed, re.M)


def test_any_function(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/any_function.py", tmp_path)
    trials = trials_of(tmp_path, "forests")
    assert [set(trial.final_metrics) for trial in trials] == [{"accuracy", "spread"}] * 8
    assert max(scores_of(trials)) > 0.9
    best = max(trials, key=lambda trial: trial.score or 0.0)
    assert f"has {best.values['trees']} trees" in printed


def test_separate(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/separate.py", tmp_path)
    trials = trials_of(tmp_path, "separate")
    assert len(trials) == 3
    for trial in trials:
        assert (tmp_path / f"results/separate/trial_{trial.trial_id}/model.keras").is_file()
    best = max(scores_of(trials))
    assert best > 0.9
    (loaded,) = numbers(r"^Its model, .*: accuracy (\S+)$", printed)
    assert loaded == pytest.approx(best, abs=1e-4)
    (longer,) = numbers(r"^Trained for longer: accuracy (\S+)$", printed)
    assert longer > 0.9
    assert (tmp_path / "results/longer.keras").is_file()


def test_applications_resnet(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("guide/applications_resnet.py", tmp_path, "--trials", "2", "--epochs", "2")
    trials = trials_of(tmp_path, "resnet")
    assert len(trials) == 2
    for trial in trials:
        narrowed = {"version": "v2", "conv3_depth": 1, "conv4_depth": 1}
        assert {name: trial.values[name] for name in narrowed} == narrowed
        assert set(trial.values) == {*narrowed, "pooling", "learning_rate"}
        assert [each.step for each in trial.runs[0].observations] == [0, 1]
    assert max(scores_of(trials)) > 0.4  # by chance it is 0.1
    assert re.search(r"^2 trials, best val_accuracy 0\.\d+ in trial 000\d", printed, re.M)


# A folder of images


def names_of(trial: Trial) -> set[str]:
    """Return the names that belong to the trial's values of `blocks`, `dropout` and `optimizer`."""
    blocks = trial.values["blocks"]
    assert isinstance(blocks, int)
    of_blocks = {f"{name}_{block}" for name in ("filters", "kernel") for block in range(blocks)}
    of_dropout = {"dropout_rate"} if trial.values["dropout"] else set()
    of_optimizer = {"adam": {"adam_rate"}, "sgd": {"sgd_rate", "momentum"}}
    chosen = of_optimizer[str(trial.values["optimizer"])]
    return {"blocks", "dropout", "optimizer", *of_blocks, *of_dropout, *chosen}


def test_images_bayesian(hosted: RunHosted, tmp_path: Path) -> None:
    printed = hosted("images/bayesian.py", tmp_path, "--trials", "5")
    trials = trials_of(tmp_path, "bayesian")
    assert len(trials) == 5
    for trial in trials:
        assert set(trial.values) == names_of(trial)
        assert 1 <= len(trial.runs[0].observations) <= 6
    assert max(scores_of(trials)) > 0.85
    assert (tmp_path / "results/bayesian/retrained_0/model.keras").is_file()
    (accuracy,) = numbers(r"^On the 297 others: accuracy (\S+)$", printed)
    assert accuracy > 0.85


def test_images_hyperband(hosted: RunHosted, tmp_path: Path) -> None:
    """Brackets of 3 and 1, and of 2 trials; the promoted one goes on where it was."""
    printed = hosted("images/hyperband.py", tmp_path, "--max-epochs", "3")
    trials = trials_of(tmp_path, "hyperband")
    steps = [
        tuple(each.step for run in trial.runs for each in run.observations) for trial in trials
    ]
    assert sorted(steps) == [(0,), (0,), (0, 1, 2), (0, 1, 2), (0, 1, 2)]
    assert sorted(len(trial.runs) for trial in trials) == [1, 1, 1, 1, 2]
    assert [set(trial.values) for trial in trials] == [names_of(trial) for trial in trials]
    assert max(scores_of(trials)) > 0.7
    accuracies = numbers(r"^retrained_\d: accuracy (\S+) on the test images$", printed)
    assert len(accuracies) == 2
    assert max(accuracies) > 0.8
