"""Optuna is silent in aiotune's hands, and as loud as before in others'."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning

from aiotune.oracles.optuna_quiet import quiet

LOG = optuna.logging.get_logger("optuna.study.study")


class Kept(logging.Handler):
    """Keeps the texts of what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    logging.getLogger("optuna").addHandler(handler)
    yield handler
    logging.getLogger("optuna").removeHandler(handler)


def test_its_log_lines_do_not_reach_a_handler(kept: Kept) -> None:
    with quiet():
        LOG.error("inside")
    LOG.error("outside")
    assert kept.texts == ["outside"]


def test_another_thread_logs_as_before(kept: Kept) -> None:
    with quiet():
        other = threading.Thread(target=LOG.error, args=("elsewhere",))
        other.start()
        other.join()
    assert kept.texts == ["elsewhere"]


def test_nothing_of_the_process_is_changed_for_good() -> None:
    def state() -> tuple[object, ...]:
        handlers = logging.getLogger("optuna").handlers
        filters = [list(each.filters) for each in handlers]
        return optuna.logging.get_verbosity(), filters, list(warnings.filters)

    before = state()
    with quiet(), quiet():
        assert state() != before
    assert state() == before


def test_its_warnings_are_ignored_and_others_are_not() -> None:
    with quiet():
        warnings.warn("may change", ExperimentalWarning, stacklevel=1)
        optuna.distributions.FloatDistribution(0.0, 1.0, step=0.3)  # warns that the range is cut
        with pytest.warns(UserWarning, match="of ours"):
            warnings.warn("of ours", stacklevel=1)
    with pytest.warns(ExperimentalWarning):
        warnings.warn("may change", ExperimentalWarning, stacklevel=1)


def test_blocks_that_overlap_leave_nothing_behind() -> None:
    before = list(warnings.filters)
    one, other = quiet(), quiet()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    warnings.warn("may change", ExperimentalWarning, stacklevel=1)  # the other one still holds
    other.__exit__(None, None, None)
    assert list(warnings.filters) == before
