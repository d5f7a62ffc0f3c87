from __future__ import annotations

from pathlib import Path

from aiotune.layout import Layout


def test_every_path_lies_in_the_project(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "digits")
    assert layout.root == tmp_path / "digits"
    assert layout.store == tmp_path / "digits/study.db"
    assert layout.lock == tmp_path / "digits/study.lock"
    assert layout.server_log == tmp_path / "digits/server.log"
    assert layout.trial("0007") == tmp_path / "digits/trial_0007"
    assert layout.run_log("0007", 2) == tmp_path / "digits/trial_0007/run-2.log"
    assert layout.run_logs == str(tmp_path / "digits/trial_<id>/run-<n>.log")
    assert layout.repeat("0007", 1) == tmp_path / "digits/trial_0007/repeat-1"
    assert layout.evaluation_log == tmp_path / "digits/evaluate.log"
    assert layout.open_evaluation_log(3) == tmp_path / "digits/evaluate-3.log"
    retrained = layout.retrained(2)
    assert retrained.model == tmp_path / "digits/retrained_2/model.keras"
    assert {path.parent for path in retrained.files} == {retrained.directory}


def test_naming_a_path_creates_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "digits")
    assert layout.run_log("0", 0).parent == layout.trial("0")
    assert list(tmp_path.iterdir()) == []
