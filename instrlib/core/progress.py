"""One progress bar for the terminal and for notebooks, which never writes to a notebook's stderr."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

_WIDTH = 30


def track(items: Iterable[Any], *, total: int, describe: str) -> Iterator[Any]:
    """Yield the items and show how far the work is.

    In a notebook one line of text is updated in place; in a terminal it is a bar on stderr; elsewhere (a log, a
    pipe) nothing is shown.

    Parameters
    ----------
    items : iterable
        What is worked on; each is yielded once.
    total : int
        How many there will be.
    describe : str
        What the work is called.

    Yields
    ------
    object
        The items, unchanged.
    """
    if _in_notebook():
        yield from _track_notebook(items, total=total, describe=describe)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description=describe, total=total, console=Console(stderr=True), transient=True)
    else:
        yield from items


def _in_notebook() -> bool:
    # That ipykernel is imported says little: test plugins import it too. Only a kernel's shell has a kernel.
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _track_notebook(items: Iterable[Any], *, total: int, describe: str) -> Iterator[Any]:
    from IPython.display import display

    def line(done: int) -> dict[str, str]:
        filled = _WIDTH * done // max(total, 1)
        return {"text/plain": f"{describe} [{'#' * filled}{'.' * (_WIDTH - filled)}] {done} of {total}"}

    handle = display(line(0), raw=True, display_id=True)
    shown = 0
    for done, item in enumerate(items, 1):
        if done == total or done - shown >= max(1, total // 100):
            handle.update(line(done), raw=True)
            shown = done
        yield item
