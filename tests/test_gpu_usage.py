"""What runs take of stand-in cards, in whole searches: real children, the real binding of NVML."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aiotune import EndReason, Limits, Resources
from aiotune.cli import main
from tests.support.gpu_searches import GIB, Sized, make
from tests.support.nvml_standin import Machine, equal_cards

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")

WATTS = 70.0


@pytest.fixture(autouse=True)
def cards(machine: Machine, driver: None) -> None:
    """Put in two cards that tell their power, and count no energy."""
    machine.put(*(replace(card, millijoules=None) for card in equal_cards(2)))


async def test_a_search_knows_what_it_took_of_its_cards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = await make(Sized, tmp_path, max_trials=6).search(verbose=0)
    for trial in result.trials:
        (run,) = trial.runs
        assert run.usage is not None
        assert run.ended_at is not None
        assert 0 < run.usage.gpu_seconds < run.ended_at - run.started_at
        assert run.usage.energy_joules == pytest.approx(WATTS * run.usage.gpu_seconds)
        assert (run.usage.peak_bytes or 0) >= int(trial.values["gibibytes"]) * GIB
    assert result.usage is not None
    assert main(["show", str(tmp_path / "project")]) == 0
    assert "GPUs: " in capsys.readouterr().out


async def test_runs_that_share_a_card_share_its_energy(tmp_path: Path) -> None:
    tuner = make(Sized, tmp_path, max_trials=8, resources=Resources(gpus=0.25, cpus=1))
    result = await tuner.search(verbose=0)
    usage = result.usage
    assert usage is not None
    assert usage.is_estimated
    assert usage.energy_joules == pytest.approx(WATTS * usage.gpu_seconds, rel=0.05)
    runs = [run for trial in result.trials for run in trial.runs]
    spans = [(run.started_at, run.ended_at or 0.0) for run in runs]
    longest = max(end for _, end in spans) - min(start for start, _ in spans)
    assert usage.gpu_seconds <= 2 * longest + 1e-6


async def test_energy_is_a_limit(tmp_path: Path) -> None:
    limits = Limits(max_energy=1e-9)
    result = await make(Sized, tmp_path, max_trials=1000, limits=limits).search(verbose=0)
    assert result.reason is EndReason.ENERGY
    assert result.usage is not None
    assert result.usage.energy_kwh is not None
    assert result.usage.energy_kwh >= 1e-9
