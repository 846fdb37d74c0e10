"""One form for numbers in all texts of a report, whichever notebook wrote them."""

import re

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"

# Not within words, dates, hashes and paths.
_NEGATIVE = re.compile(r"(?<![\w./-])-(?=\.?\d)")
_TINY = re.compile(r"(?<![\w.-])(\d(?:\.\d+)?e)-(\d{2})(?!\w)")
_PERCENT = re.compile(r"(?<=\d) ?%")


def typeset(words: str) -> str:
    """Set negative numbers with a minus sign, and a space that does not break before each per cent sign.

    Parameters
    ----------
    words : str
        As a notebook or a table wrote it.

    Returns
    -------
    str

    Examples
    --------
    >>> typeset("-0.5 [-0.6, +0.1] of 3-s clips, 5%").replace(NO_BREAK, "_")
    '−0.5 [−0.6, +0.1] of 3-s clips, 5_%'
    """
    signed = _TINY.sub(rf"\1{MINUS}\2", _NEGATIVE.sub(MINUS, words))
    return _PERCENT.sub(f"{NO_BREAK}%", signed)
