"""What the command line prints: predictions, tables, paths and errors."""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer


def show_predictions(predicted: Sequence[Any], model: str, *, top: int, as_json: bool, as_csv: bool) -> None:
    """Print predictions as a table, as JSON or as CSV."""
    records, rows = [], []
    for one in predicted:
        answer, best = (one.named[0] if one.named else None), one.top(top)
        named = [{"class": name, "probability": share} for name, share in best]
        file, seconds = os.fspath(one.path), round(one.duration_s, 3)
        records.append({"file": file, "duration_s": seconds, "answer": answer, "top": named, "model": model})
        if as_csv:
            shares = [value for name, share in best for value in (name, f"{share:.6f}")]
            rows.append([_text(one.path), f"{seconds:.3f}", answer or "", *shares, model])
        else:
            length = f"{one.duration_s // 60:.0f}:{one.duration_s % 60:04.1f}"
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in best)
            rows.append((_printable(_text(one.path)), length, answer or "none of these", shares))
    if as_json:
        typer.echo(json.dumps(records, indent=2))  # in ASCII, because a file name need not be text
    elif as_csv:
        n_shown = min(top, max((len(one.classes) for one in predicted), default=top))
        columns = [f"{what}_{number}" for number in range(1, n_shown + 1) for what in ("class", "probability")]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["file", "duration_s", "answer", *columns, "model"], *rows])
        typer.echo(text.getvalue(), nl=False)
    elif rows:
        table(("file", "min:s", "answer", "most probable"), rows)


def _text(path: object) -> str:
    """Replace the bytes of a path or message that are not UTF-8."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def say_error(message: object) -> None:
    """Print an error as one line on stderr."""
    typer.echo(f"Error: {_printable(' '.join(_text(message).split()))}", err=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table in aligned columns in a terminal, and separated by tabs otherwise."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        aligned = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.echo(aligned if sys.stdout.isatty() else "\t".join(row))


def near(path: Path) -> str:
    """Return a path relative to the working folder if it is in it."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)
