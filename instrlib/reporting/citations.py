"""Splits Markdown sentences into parts for HTML and PDF, and numbers the cited works."""

import functools
import importlib.resources
import re
from html.parser import HTMLParser

import instrlib
from instrlib.core.io import InstrlibError

Piece = dict[str, str]
"""`text`, and at most one of `code`, `strong`, `emphasis` (each "yes"), `url`, `cite`."""

_MARKED = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\[(?P<cite>@[\w; @-]+)\]|\[(?P<link>[^\]]+)\]\((?P<url>[^)]+)\)"
)
_NEGATIVE = re.compile(r"(?<![\w./-])-(?=\.?\d)")  # not within words, dates, hashes and paths
_PERCENT = re.compile(r"(?<=\d) ?%")


def typeset(text: str) -> str:
    r"""Return a text with minus signs and with fixed spaces before per cent signs.

    Examples
    --------
    >>> typeset("-0.5 to +0.1, 5%, 2026-11-30").replace("\N{NO-BREAK SPACE}", "_")
    '−0.5 to +0.1, 5_%, 2026-11-30'
    """
    return _PERCENT.sub("\N{NO-BREAK SPACE}%", _NEGATIVE.sub("\N{MINUS SIGN}", text))


class Citations:
    """The works that a document cites, in order of citation."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def pieces(self, text: str) -> list[Piece]:
        """Split Markdown (code, strong, links, `[@key; @other]`); raise `InstrlibError` if a cited work is unknown.

        Examples
        --------
        >>> Citations().pieces("CutMix [@yun2019] of `augment`")[1]
        {'text': '[1]', 'cite': 'yun2019'}
        """
        found: list[Piece] = []
        end = 0
        for match in _MARKED.finditer(text):
            found.append({"text": typeset(text[end : match.start()])})
            end = match.end()
            if match["cite"]:
                keys = match["cite"].replace("@", "").replace(" ", "").split(";")
                found += [{"text": f"[{self._number(key)}]", "cite": key} for key in keys]
            elif match["link"]:
                found.append({"text": typeset(match["link"]), "url": match["url"]})
            elif match["code"]:
                found.append({"text": match["code"], "code": "yes"})
            else:
                found.append({"text": typeset(match["strong"]), "strong": "yes"})
        found.append({"text": typeset(text[end:])})
        return [piece for piece in found if piece["text"]]

    def works(self) -> list[dict[str, object]]:
        """Return number, key and text of the works cited so far."""
        return [{"number": number, "key": key, "pieces": _formatted()[key]} for key, number in self.numbers.items()]

    def _number(self, key: str) -> int:
        if key not in _formatted():
            raise InstrlibError(f"{key!r} is cited but missing in templates/references.bib. Add it there.")
        return self.numbers.setdefault(key, len(self.numbers) + 1)


@functools.cache
def _formatted() -> dict[str, list[Piece]]:
    """Return all works in BibTeX's plain style."""
    from pybtex.backends.html import Backend
    from pybtex.database import parse_string
    from pybtex.style.formatting.unsrt import Style

    source = (importlib.resources.files(instrlib) / "templates" / "references.bib").read_text(encoding="utf-8")
    works = Style().format_entries(list(parse_string(source, "bibtex").entries.values()))
    return {work.key: _Pieces(work.text.render(Backend())).found for work in works}


class _Pieces(HTMLParser):
    """Reads the tags that pybtex writes."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Piece] = []
        self.inside: Piece = {}
        self.feed(page.replace("\n", " "))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("em", "a"):
            self.inside = {"emphasis": "yes"} if tag == "em" else {"url": dict(attrs)["href"] or ""}

    def handle_endtag(self, tag: str) -> None:
        if tag in ("em", "a"):
            self.inside = {}

    def handle_data(self, data: str) -> None:
        self.found.append({"text": data, **self.inside})
