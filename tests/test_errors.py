from __future__ import annotations

import traceback

import pytest

from aiotune.errors import AiotuneError, FatalValueError, MissingFramework, StoreLocked


@pytest.mark.parametrize("kind", [AiotuneError, FatalValueError, MissingFramework, StoreLocked])
def test_a_message_shows_what_a_terminal_would_obey(kind: type[AiotuneError]) -> None:
    error = kind("the name \x1b]0;title\x07\nis known")

    assert str(error) == "the name \\x1b]0;title\\x07\nis known"
    assert "\x1b" not in "".join(traceback.format_exception(error))
