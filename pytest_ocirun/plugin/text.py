"""Text that came from a guest, made safe to show. Knows nothing of where it is shown.

Control characters, marks that reorder text, lone surrogates and code points that XML forbids are written as Python
escapes; tabs and line ends stay. A terminal shows what was sent, and obeys none of it.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    r"\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def escape(text: str) -> str:
    """Return *text* with everything that could act on a terminal or break a document written out."""
    return _UNSAFE.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str, limit: int = 200) -> str:
    """Return *text* escaped, on one line and no longer than *limit*."""
    flat = escape(" ".join(text.split()))
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
