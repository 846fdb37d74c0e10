"""What the command shows while a study runs: a live bar in a terminal, plain lines everywhere else."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from instrlib.runner.study import Watcher

_LINE_EVERY_S = 10.0


class TerminalWatcher(Watcher):
    """Shows a study's progress on a console.

    Parameters
    ----------
    console : rich.console.Console
        Where it is shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: Any = None
        self._began = self._shown = 0.0

    def unchanged(self, notebook: str) -> None:
        """Say that a notebook is skipped."""
        self._say(f"{notebook}: unchanged")

    def left_out(self, notebook: str, why: str) -> None:
        """Say why a notebook is left out."""
        self._say(f"{notebook}: left out, because {why}")

    def started(self, notebook: str, why: str) -> None:
        """Say why a notebook is executed and start its bar."""
        self._say(f"{notebook}: executed, because {why}")
        self._began = self._shown = time.monotonic()
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                "cells",
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(notebook, total=None)
            self._bar.start()

    def cell(self, notebook: str, done: int, total: int) -> None:
        """Move the bar; without a terminal, write a line every ten seconds at most."""
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif now - self._shown >= _LINE_EVERY_S:
            self._shown = now
            self._say(f"{notebook} {done}/{total} cells, {in_words(now - self._began)}")

    def finished(self, notebook: str, duration_s: float) -> None:
        """Say how long a notebook took."""
        self.stopped(notebook)
        self._say(f"{notebook}: done in {in_words(duration_s)}")

    def stopped(self, notebook: str) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def in_words(duration_s: float) -> str:
    """Say a duration as a person would.

    Examples
    --------
    >>> in_words(7.4), in_words(125), in_words(7_260)
    ('7 s', '2 min 5 s', '2 h 1 min')
    """
    whole = round(duration_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
