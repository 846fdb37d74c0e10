"""Words with citations: texts are cut into pieces that a page and a PDF set alike, and works are numbered as cited."""

import functools
import importlib.resources
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import instrlib
from instrlib.core.errors import InstrlibError
from instrlib.report.typography import typeset

Piece = dict[str, str]
"""One piece of a text: `text` to be set, and at most one of `code`, `strong`, `emphasis` (all "yes"), `url`, `cite`."""

_MARKED = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\[(?P<cite>@[\w; @]+)\]")


@dataclass
class Citations:
    """The works that a document cites, numbered in the order of their first mention.

    Attributes
    ----------
    numbers : dict of str to int
        Number of each work, by its key in `templates/references.bib`.
    """

    numbers: dict[str, int] = field(default_factory=dict)

    def pieces(self, words: str) -> list[Piece]:
        """Cut a text into pieces; `[@key; @other]` cites, backticks mark code and double asterisks what is strong.

        Numbers get their signs; see `typography.typeset`. Code stays as it is.

        Parameters
        ----------
        words : str
            The text. Everything else in it is set as it stands.

        Returns
        -------
        list of dict

        Raises
        ------
        InstrlibError
            When a work is cited that the file of references does not hold.

        Examples
        --------
        >>> Citations().pieces("CutMix [@yun2019] of `augment`")[1]
        {'text': '[1]', 'cite': 'yun2019'}
        """
        found: list[Piece] = []
        end = 0
        for match in _MARKED.finditer(words):
            found += [{"text": typeset(words[end : match.start()])}] if match.start() > end else []
            end = match.end()
            if match["cite"]:
                for key in match["cite"].replace("@", "").split("; "):
                    found.append({"text": f"[{self._number(key)}]", "cite": key})
            else:
                kind = "code" if match["code"] else "strong"
                found.append({"text": match["code"] or typeset(match["strong"]), kind: "yes"})
        return found + ([{"text": typeset(words[end:])}] if end < len(words) else [])

    def works(self) -> list[dict[str, object]]:
        """Return the works cited so far: `number`, `key` and the `pieces` of each, in order."""
        return [{"number": number, "key": key, "pieces": _formatted()[key]} for key, number in self.numbers.items()]

    def _number(self, key: str) -> int:
        if key not in _formatted():
            raise InstrlibError(f"{key!r} is cited, but templates/references.bib does not hold it; add it there.")
        return self.numbers.setdefault(key, len(self.numbers) + 1)


@functools.cache
def _formatted() -> dict[str, list[Piece]]:
    """Format every work once, in the plain style of BibTeX, as pieces."""
    from pybtex.backends.html import Backend
    from pybtex.database import parse_string
    from pybtex.style.formatting.unsrt import Style

    source = (importlib.resources.files(instrlib) / "templates" / "references.bib").read_text(encoding="utf-8")
    works = Style().format_entries(list(parse_string(source, "bibtex").entries.values()))
    return {work.key: _Pieces(work.text.render(Backend())).found for work in works}


class _Pieces(HTMLParser):
    """Read the few tags that pybtex writes."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Piece] = []
        self.inside: Piece = {}
        self.feed(page.replace("\n", " "))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin emphasis or a link; what protects a title's capitals means nothing here."""
        if tag == "em":
            self.inside = {"emphasis": "yes"}
        elif tag == "a":
            self.inside = {"url": dict(attrs)["href"] or ""}

    def handle_endtag(self, tag: str) -> None:
        """End it."""
        if tag in ("em", "a"):
            self.inside = {}

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.found.append({"text": data, **self.inside})
