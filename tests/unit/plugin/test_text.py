"""Text from inside: shown, never obeyed."""

import pytest

from pytest_ocirun.plugin.text import escape, one_line


@pytest.mark.parametrize(
    "text, expected",
    [
        ("plain é ☃ 𝄞", "plain é ☃ 𝄞"),
        ("tab\tline\nend\r\n", "tab\tline\nend\r\n"),
        ("\x1b[2J", "\\x1b[2J"),
        ("back\rover", "back\\x0dover"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("exe\u202egnp", "exe\\u202egnp"),
        ("\u2066\u200f\ufeff", "\\u2066\\u200f\\ufeff"),
        ("\udc80\ud800", "\\udc80\\ud800"),
        ("\ufffe\uffff", "\\ufffe\\uffff"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    """Control characters, bidi marks, lone surrogates and what XML forbids are written out."""
    assert escape(text) == expected
    escape(text).encode("utf-8")


def test_one_line() -> None:
    """A summary has one line, of bounded length."""
    assert one_line("a\n  b\x1b") == "a b\\x1b"
    assert len(one_line("x" * 1000)) == 200
