"""docs/reliability.md: it makes every promise, its proofs exist, and its figures are as they were counted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.support.chaos import PROMISES, Chaos, Session, Tally, write_report
from tests.support.programs import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from reliability import PAGE, Refusal, figures_of, is_untouched, promises_of, rendered, replaced

WRITER = ROOT / "benchmarks" / "reliability.py"
SEED = 7


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Return the report of a whole, long run in which nothing was lost."""
    tallies: dict[str, Tally] = {}
    for number, promise in enumerate(PROMISES):
        chaos = Chaos(f"tests/chaos/test_x.py::test_{number}", tallies, seed=SEED, is_long=True)
        chaos.count(promise, "kill -9", 1000 + number)
        chaos.measure(promise, "resume", f"{number} s", target="3 s", is_met=number < 3)
    path = tmp_path / "report.json"
    skipped = ["tests/chaos/test_x.py::test_on_a_mac"]
    write_report(path, tallies, Session(SEED, is_long=True, skipped=skipped, seconds=1200))
    return path


def write(report: Path, page: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, WRITER, report, "--page", page]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# --- the page as it is ---


def test_it_makes_every_promise_in_their_order(page: str) -> None:
    assert tuple(promises_of(page)) == PROMISES


def test_every_proof_that_it_names_exists(page: str) -> None:
    named = set(re.findall(r"`((?:tests|benchmarks)/[\w./]+\.py)`", page))
    assert "tests/chaos/test_long_run.py" in named
    assert [each for each in sorted(named) if not (ROOT / each).is_file()] == []


def test_no_test_of_fault_injection_is_forgotten(page: str) -> None:
    harness = {"tests/chaos/test_chaos.py"}
    files = {str(each.relative_to(ROOT)) for each in (ROOT / "tests/chaos").glob("test_*.py")}
    text = page.replace(figures_of(page), "")
    assert [each for each in sorted(files - harness) if f"`{each}`" not in text] == []


def test_its_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page)
    broken = [each for each in links if "://" not in each and not (PAGE.parent / each).exists()]
    assert broken == []


def test_others_lead_to_it() -> None:
    for name, link in {
        "README.md": "docs/reliability.md",
        "docs/index.md": "reliability.md",
        "docs/design.md": "reliability.md",
        "benchmarks/README.md": "../docs/reliability.md",
    }.items():
        assert f"]({link})" in (ROOT / name).read_text(), name


def test_nobody_has_touched_its_figures(page: str) -> None:
    assert is_untouched(page), "the figures are not as `make chaos` wrote them: run it again"


# --- how it is written ---


def test_the_figures_come_from_the_report(page: str, report: Path, tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(page)
    done = write(report, copy)
    assert done.returncode == 0, done.stderr
    written = copy.read_text()
    assert is_untouched(written)
    assert page.replace(figures_of(page), "").split("<!--")[0] in written
    figures = figures_of(written)
    assert (
        "| [Nothing is lost](#nothing-is-lost) | `tests/chaos/test_x.py` (1) | 1,000 | 0 |"
        in figures
    )
    assert "| It lasts | kill -9 | 1,008 |" in figures
    assert "| Nothing is left behind | resume | 2 s | 3 s | met |" in figures
    assert "| Nothing hangs | resume | 4 s | 3 s | **missed** |" in figures
    assert f"`--chaos-seed={SEED}`" in figures
    assert "20 minutes" in figures
    assert "`test_on_a_mac`" in figures
    assert f"Python {'.'.join(map(str, sys.version_info[:3]))}" in figures


def test_an_edit_by_hand_shows(page: str) -> None:
    edited = replaced(page, "| lost | 0 |\n").replace("| lost | 0 |", "| lost | 1 |")
    assert not is_untouched(edited)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda report: report["session"].update(has_passed=False), "tests have failed"),
        (lambda report: report["session"].update(is_long=False), "the quick versions"),
        (lambda report: report["promises"].pop("It lasts"), "nothing was counted for 'It lasts'"),
        (
            lambda report: report["promises"]["It lasts"].update(losses=1),
            "something was lost: 'It lasts'",
        ),
    ],
)
def test_half_a_report_is_refused(report: Path, change: Any, why: str) -> None:
    told = json.loads(report.read_text())
    assert rendered(told, PROMISES, "here", "today")
    changed = deepcopy(told)
    change(changed)
    with pytest.raises(Refusal, match=why):
        rendered(changed, PROMISES, "here", "today")


def test_a_refused_report_leaves_the_page_as_it_is(page: str, report: Path, tmp_path: Path) -> None:
    report.write_text(report.read_text().replace('"losses": 0', '"losses": 2', 1))
    copy = tmp_path / "page.md"
    copy.write_text(page)
    done = write(report, copy)
    assert done.returncode != 0
    assert "left as it is: something was lost" in done.stderr
    assert copy.read_text() == page
