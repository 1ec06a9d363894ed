"""Mails as DATA carries them: CRLF lines, leading dots doubled (RFC 5321, 2.3.8 and 4.5.2)."""

from typing import Final

import numpy as np

CR: Final = 13
LF: Final = 10
DOT: Final = 46


def on_the_wire(data: bytes) -> bytes:
    """A mail without the final dot. A finished one passes through; what needs it is rewritten."""
    if not is_ready(data):
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        data = (b"\r\n" + data).replace(b"\r\n.", b"\r\n..")[2:]
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def is_ready(data: bytes) -> bool:
    """Whether every CR and LF is part of a CRLF, and no line starts with a dot.

    Whole arrays of numpy: a search for two bytes costs several times as much.
    """
    signs = np.frombuffer(b"\n%b\n" % data, np.uint8)
    after_cr, at_lf = signs[:-2] == CR, signs[1:-1] == LF
    dots = signs[1:] == DOT
    whole = signs[-2] != CR and np.array_equal(after_cr, at_lf)
    return bool(whole and not dots[0] and not (at_lf & dots[1:]).any())
