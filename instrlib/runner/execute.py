"""Executes a notebook with papermill, with one time limit, and errors that name notebook and cell."""

import contextlib
import functools
import logging
import math
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from instrlib.core import io as errors
from instrlib.core.io import InstrlibError, RunError, write_text
from instrlib.runner.notebooks import is_progress

_QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "TQDM_DISABLE": "1"}
"""Variables that keep warnings and progress bars out of executed notebooks."""


def execute(
    notebook: Path,
    output: Path,
    *,
    parameters: dict[str, Any],
    limit_s: float,
    environment: dict[str, str] | None = None,
    on_cell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Execute a notebook in a new kernel, in the notebook's folder, and write the executed copy to `output`.

    `parameters` are set after the cell tagged `parameters`; `limit_s` applies to the whole notebook; `environment` is
    added to the variables of this process; `on_cell` receives the number of finished cells and of all cells. After a
    failure the copy ends with the cell that failed.

    Raises
    ------
    RunError
        If a cell raises, the kernel dies or does not start, or the time is up. An `InstrlibError` keeps its class.
    KeyboardInterrupt
        On SIGINT and SIGTERM, after the kernel was ended.
    """
    papermill = _papermill()
    with warnings.catch_warnings(), tempfile.TemporaryFile("w+", errors="replace") as console:
        warnings.simplefilter("ignore")
        papermill.execute_notebook(
            str(notebook),
            None,
            parameters=parameters,
            engine_name="instrlib",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            name=notebook.stem,
            output=output,
            limit_s=limit_s,
            on_cell=on_cell,
            start={
                "cwd": str(notebook.parent.absolute()),
                "env": os.environ | _QUIET | (environment or {}),
                "stdout": console,
                "stderr": console,
            },
        )


@functools.cache
def _papermill() -> Any:
    """Import papermill, disable its logger and register an engine."""
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    for name in ("papermill", "asyncio"):  # asyncio reports tasks that waited for an interrupted kernel
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    class Client(PapermillNotebookClient):
        exit_status: int | None = None

        def papermill_execute_cells(self) -> None:
            try:
                super().papermill_execute_cells()
            except BaseException:
                self.exit_status = self.km.provisioner.process.poll()
                # A busy kernel does not answer, and its worker processes would outlive it.
                self.shutdown_kernel = "immediate"
                self.kill()
                raise

        def kill(self) -> None:
            kernel = getattr(self.km, "provisioner", None)
            if kernel is not None and kernel.pgid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(kernel.pgid, signal.SIGKILL)

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(
            cls,
            nb_man: Any,
            kernel_name: str,
            *,
            name: str,
            output: Path,
            limit_s: float,
            on_cell: Callable[[int, int], None],
            start: dict[str, Any],
            **_: Any,
        ) -> None:
            notebook, total = nb_man.nb, len(nb_man.nb.cells)
            deadline, at = math.inf, -1

            def save() -> None:
                for cell in notebook.cells:
                    if cell.cell_type == "code":
                        cell.outputs = [part for part in cell.outputs if not is_progress(part)]
                write_text(output, nbformat.writes(notebook) + "\n")

            def cell_starts(cell: Any, cell_index: int) -> None:
                nonlocal at, deadline
                at, deadline = cell_index, min(deadline, time.monotonic() + limit_s)
                on_cell(at, total)

            def where() -> str:
                count = sum(cell.cell_type == "code" for cell in notebook.cells[: at + 1])
                return f"{name}: cell {at + 1} of {total} (In [{count}])"

            client = Client(
                nb_man,
                kernel_name=kernel_name,
                on_cell_start=cell_starts,
                timeout_func=lambda cell: max(deadline - time.monotonic(), 0.01),
                log=logging.getLogger("papermill"),
            )
            save()  # marks the run as started
            try:
                with _terminable():
                    client.execute(**start)
                if failed := [cell for cell in notebook.cells if cell.metadata.papermill.exception]:
                    _raise_from(failed[0], where(), output)
                on_cell(total, total)
            except CellTimeoutError:
                raise RunError(f"{where()} was stopped: the notebook's limit is {limit_s:g} s.") from None
            except DeadKernelError:
                raise RunError(f"{where()} lost its kernel: {_death(client.exit_status)}.") from None
            except RuntimeError as error:
                start["stderr"].seek(0)
                reason = _last_line(start["stderr"]) or error
                raise RunError(f"{name}: the notebook's kernel did not start: {reason}") from error
            finally:
                save()

    papermill_engines.register("instrlib", Engine)
    return papermill


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C inside the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can set handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_from(cell: Any, where: str, output: Path) -> None:
    """Raise the error of a cell: an `InstrlibError` with its class, any other with its last line."""
    error = next((out for out in cell.outputs if out.output_type == "error"), None)
    if error is None:
        raise RunError(f"{where} failed; open {output}.")
    kind = getattr(errors, error.ename, None)
    if isinstance(kind, type) and issubclass(kind, InstrlibError):
        raise kind(f"{where}: {error.evalue}")
    message = _last_line(error.evalue.splitlines())
    raise RunError(f"{where} failed: {error.ename}{': ' * bool(message)}{message}; see {output}.")


def _death(status: int | None) -> str:
    if status is None or status >= 0:
        return f"it ended with status {status}"
    if status == -signal.SIGKILL:
        return "it was killed, usually for lack of memory; use a smaller profile or INSTRLIB_WORKERS=1"
    return f"it crashed ({signal.Signals(-status).name})"


def _last_line(lines: Iterable[str]) -> str:
    return next((line.strip() for line in reversed([*lines]) if line.strip()), "")
