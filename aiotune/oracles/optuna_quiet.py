"""Optuna in silence: its log lines and warnings are about programs that call it themselves."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from optuna.exceptions import ExperimentalWarning

__all__ = ["quiet"]

_lock = threading.Lock()
_blocks = 0  # how many are open, over all threads
_rules: list[Any] = []  # the ones of `warnings.filters` that are ours, while a block is open


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what Optuna logs in this thread, and warns of, from the user in this block.

    The level of its logger stays as it is, and other threads log as before. Rules about warnings hold for the
    whole process: those of this block are for Optuna alone, and leave with the last block.
    """
    with _without_log_lines(), _without_warnings(), np.errstate(all="ignore"):
        yield


class _OfOtherThreads(logging.Filter):
    """Passes all but what Optuna logs in the thread that made this filter."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or not f"{record.name}.".startswith("optuna.")


@contextmanager
def _without_log_lines() -> Iterator[None]:
    # Records of its modules' loggers pass by the filters of handlers, not by those of the loggers above them.
    optuna, root = logging.getLogger("optuna"), logging.getLogger()
    handlers = [*optuna.handlers, *(root.handlers if optuna.propagate else ())]
    silence = _OfOtherThreads()
    for each in handlers:
        each.addFilter(silence)
    try:
        yield
    finally:
        for each in handlers:
            each.removeFilter(silence)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Ignore Optuna's warnings. Not by `warnings.catch_warnings`: it puts back the rules of its beginning.

    That would undo what another thread has done in the meantime, and for ever if two such blocks overlap.
    """
    global _blocks
    with _lock:
        if _blocks == 0:
            _add_rules()
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                _remove_rules()


def _add_rules() -> None:
    # The pattern, which matches anything, makes the rule ours: nobody else adds, or takes away, an equal one.
    everything = r"(?s)(?#aiotune)"
    warnings.filterwarnings("ignore", everything, ExperimentalWarning)
    _rules.append(warnings.filters[0])
    warnings.filterwarnings(
        "ignore", everything, Warning, module=r"optuna\.|aiotune\.oracles\.optuna"
    )
    _rules.append(warnings.filters[0])


def _remove_rules() -> None:
    while _rules:
        with suppress(ValueError):  # somebody has put back older rules
            warnings.filters.remove(_rules.pop())  # type: ignore[attr-defined]
