"""Writes a document as one HTML file and as a PDF; both work offline."""

import base64
import importlib.resources
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import instrlib
from instrlib.core.io import RunError, atomic_path, write_text
from instrlib.reporting.document import report
from instrlib.reporting.summary import Study

# The file has a fixed date, so that equal documents give equal bytes.
_NO_TIME = datetime(1980, 1, 1, tzinfo=UTC)


def write_report(study: Study) -> tuple[Path, Path]:
    """Write `report.html` and `report.pdf` into the folder of the study."""
    document = report(study)
    return (
        write_html(document, study.folder / "report.html"),
        write_pdf(document, study.folder / "report.pdf"),
    )


def write_html(document: dict[str, Any], path: Path) -> Path:
    """Write a document as one HTML file with embedded figures."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instrlib"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["picture"] = lambda figure: base64.b64encode(_figure(figure, ".png")).decode()
    write_text(path, environment.get_template("report.html").render(**document) + "\n")
    return path


def write_pdf(document: dict[str, Any], path: Path) -> Path:
    """Write a document as an A4 PDF; equal documents give equal bytes."""
    import typst

    figures = {
        block["stem"]: _figure(block["path"], ".svg").decode()
        for section in document["sections"]
        for block in section["blocks"]
        if block["kind"] == "figure"
    }
    template = importlib.resources.files(instrlib) / "templates" / "report.typ"
    pdf = typst.compile(
        template.read_bytes(),
        sys_inputs={"data": json.dumps(document | {"drawn": figures})},
        ignore_system_fonts=True,
        timestamp=_NO_TIME,
        pdf_tags=False,  # a third of the file; screen readers can use the HTML
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(pdf)
    return path


def _figure(path: str, ending: str) -> bytes:
    drawn = Path(path + ending)
    if not drawn.is_file():
        raise RunError(f"{drawn} not found. Run `instrlib figures` for this study first.")
    return drawn.read_bytes()
