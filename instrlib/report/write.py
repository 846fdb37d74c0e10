"""The argument as one page of HTML, and as a PDF that typst sets inside this process."""

import base64
import importlib.resources
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import instrlib
from instrlib.core.errors import RunError
from instrlib.core.io import atomic_path, write_text
from instrlib.plots.base import DPI
from instrlib.report.argument import argument
from instrlib.runner.publish import figures_folder, results_path

_SHOWN_DPI = 100
# The same numbers give the same bytes: the file says when nothing, and commits stand in its text.
_NO_TIME = datetime(1980, 1, 1, tzinfo=UTC)


def write_report(study: str) -> Path:
    """Write `reports/<study>/report.html`: the argument, and in its appendix all other figures and the full tables.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    Path
        The page, one file that asks no other host for anything. Its links lead to the notebooks, numbers and arrays
        beside it.

    Raises
    ------
    RunError
        When the study has no results.
    """
    import jinja2

    document = argument(study)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instrlib"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["picture"] = lambda stem, colours: _picture(figures_folder(study) / f"{stem}.png", colours)
    path = results_path(study).with_name("report.html")
    write_text(path, environment.get_template("report.html").render(**document) + "\n")
    return path


def write_pdf(study: str) -> Path:
    """Write `reports/<study>/report.pdf`: the argument on pages of A4, the same to the byte for the same numbers.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    Path
        The PDF.

    Raises
    ------
    RunError
        When the study has no results, or a figure is missing.
    """
    import typst

    document = argument(study)
    stems = [block["stem"] for block in _blocks(document["sections"]) if block["kind"] == "figure"]
    figures = {stem: _drawing(figures_folder(study) / f"{stem}.svg") for stem in stems}
    template = importlib.resources.files(instrlib) / "templates" / "report.typ"
    pdf = typst.compile(
        template.read_bytes(),
        sys_inputs={"data": json.dumps(document | {"drawn": figures})},
        ignore_system_fonts=True,
        timestamp=_NO_TIME,
        pdf_tags=False,  # they take a third of the file; the page is the form for screen readers
    )
    path = results_path(study).with_name("report.pdf")
    with atomic_path(path) as temporary:
        temporary.write_bytes(pdf)
    return path


def _blocks(sections: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for section in sections:
        yield from section["blocks"]
        yield from _blocks(section["sections"])


def _drawing(path: Path) -> str:
    if not path.is_file():
        raise RunError(f"{path} is missing; run `instrlib figures` for this corpus and profile first.")
    return path.read_text(encoding="utf-8")


def _picture(path: Path, colours: int) -> dict[str, Any]:
    """Return a PNG as the text of a WebP of so many colours, and the width at which its letters are the page's size."""
    from PIL import Image

    with Image.open(path) as stored:
        picture = stored.convert("RGB")
    small = io.BytesIO()
    # Lossless, and three quarters of the bytes of PNG.
    picture.quantize(colours, dither=Image.Dither.NONE).convert("RGB").save(small, "WEBP", lossless=True, method=4)
    width, height = (max(1, round(side * _SHOWN_DPI / DPI)) for side in picture.size)
    return {"base64": base64.b64encode(small.getvalue()).decode(), "width": width, "height": height}
