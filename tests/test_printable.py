"""Text of others, fit for a terminal. Summaries and the command line: tests/chaos/test_security.py."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from aiotune.printable import one_line, printable


def test_text_stays_as_it_is() -> None:
    text = "a\tb\nÄ 中 🙂 👩‍🔬 ± … \u00a0"
    assert printable(text) == text


def test_colours_go_and_the_rest_is_shown_by_its_number() -> None:
    assert printable("\x1b[1mbold\x1b[0m \x1b[2J\x9b \u202e") == "bold \\x1b[2J\\x9b \\u202e"
    assert one_line("a\nb\tc") == "a\\x0ab\\x09c"


@given(st.text(st.characters(), max_size=20))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not [
        each for each in one_line(text) if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")
    ]
