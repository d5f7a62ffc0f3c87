"""The examples, run as a user runs them: each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiotune.events import EndReason
from aiotune.history import History
from aiotune.store.reader import read_facts
from aiotune.trial import TrialState

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


def test_no_example_is_forgotten() -> None:
    tested = {"quickstart.py", "service.py", "function.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_service(tmp_path: Path) -> None:
    printed = run_example("service.py", tmp_path)
    assert re.search(r"trial 0000 is COMPLETED, score \d", printed)
    assert re.search(r"running: \('\d{4}'", printed)
    assert re.search(r"\d+ trials, best loss 0\.03\d+ in trial \d{4}; ended by stopped", printed)
    assert "the service answered meanwhile: True" in printed


def test_function(tmp_path: Path) -> None:
    printed = run_example("function.py", tmp_path)
    assert re.search(
        r"^6 trials, best energy 0\.\d+ in trial \d{4}; ended by max_trials", printed, re.M
    )
    assert re.search(r"^20 trials, best seconds 0\.\d+ in trial \d{4}", printed, re.M)
    assert re.search(r"^\{'batch': \d+, 'compress': True\}", printed, re.M)


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
