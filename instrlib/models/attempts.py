"""Fan work out that may fail: a task that raises, or takes its whole process down, is noted and the others go on.

Each task leaves a note when it has ended, well or badly, so that work which was killed goes on where it stood. A task
that is under way leaves a mark. When a process dies, those that are marked are suspects, since one death ends all
processes of a pool; each is then run by itself, and only the one that dies again is at fault.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib.core.errors import DiskError, InstrlibError, WorkerError
from instrlib.core.io import read_json, write_json
from instrlib.core.parallel import parallel_map

_LONGEST_REASON = 200


@dataclass(frozen=True)
class Attempt:
    """How a task ended.

    Attributes
    ----------
    status : {"done", "failed", "died"}
        It returned; it raised an error; its process ended twice without a word.
    reason : str
        Why it did not return, in one line; "" when it did.
    result : object
        What it returned; None when it did not.
    """

    status: str
    reason: str
    result: Any


def attempt_all(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    notes: Sequence[Path],
    keys: Sequence[str],
    workers: int | None = None,
    describe: str = "working",
) -> list[Attempt]:
    """Call `function(*task)` for every task in other processes, whatever becomes of each.

    Parameters
    ----------
    function : callable
        A function of a module; what it returns must be plain values, which JSON holds.
    tasks : sequence of tuple
        The arguments of each call.
    notes : sequence of Path
        A JSON file for each task, which is written when the task has ended.
    keys : sequence of str
        A hash of all that decides each task. One whose note has this key is not run again, failed ones included;
        delete the note to try again.
    workers, describe
        See `parallel.parallel_map`.

    Returns
    -------
    list of Attempt
        One for each task.

    Raises
    ------
    DiskError
        When a task could not write: that is no fault of the task, and the others could not write either.
    WorkerError
        When processes die before any task has begun, or a cluster cannot be used.
    """
    calls = {note: (function, task, note, key) for task, note, key in zip(tasks, notes, keys, strict=True)}
    waiting = [note for note, (*_, key) in calls.items() if _read(note, key) is None]
    for note in waiting:
        _mark(note).unlink(missing_ok=True)  # of a search that was killed
    while waiting:
        try:
            _run([calls[note] for note in waiting], workers, describe)
        except WorkerError:
            suspects = [note for note in _open(calls, waiting) if _mark(note).is_file()]
            if not suspects:
                raise
            for note in suspects:
                _run_alone(calls[note], describe)
        waiting = _open(calls, waiting)
    return [_read(note, key) for note, (*_, key) in calls.items()]


def _run(calls: list[tuple], workers: int | None, describe: str) -> None:
    for _ in parallel_map(_attempt, calls, workers=workers, describe=describe, isolate=True):
        pass


def _run_alone(call: tuple, describe: str) -> None:
    *_, note, key = call
    _mark(note).unlink(missing_ok=True)
    try:
        _run([call], 1, f"{describe}, one by itself")
    except WorkerError:
        if not _mark(note).is_file():  # it never began: the fault lies elsewhere
            raise
        _write(note, key, Attempt("died", "its process ended without a word, twice (out of memory, or killed).", None))
        _mark(note).unlink(missing_ok=True)


def _attempt(function: Callable[..., Any], task: tuple, note: Path, key: str) -> None:
    if _read(note, key) is not None:  # a cluster runs tasks again whose results were lost with a worker
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    _mark(note).touch()
    try:
        attempt = Attempt("done", "", function(*task))
    except DiskError:
        raise
    except Exception as error:  # whatever it is, it is this task's own
        attempt = Attempt("failed", _one_line(error), None)
    _write(note, key, attempt)
    _mark(note).unlink(missing_ok=True)


def _open(calls: dict[Path, tuple], notes: list[Path]) -> list[Path]:
    return [note for note in notes if _read(note, calls[note][-1]) is None]


def _mark(note: Path) -> Path:
    return note.with_suffix(".begun")


def _write(note: Path, key: str, attempt: Attempt) -> None:
    write_json(note, {"key": key, **vars(attempt)})


def _read(note: Path, key: str) -> Attempt | None:
    if not note.is_file():
        return None
    kept = read_json(note)
    whole = isinstance(kept, dict) and {"key", "status", "reason", "result"} <= kept.keys()
    return Attempt(kept["status"], kept["reason"], kept["result"]) if whole and kept["key"] == key else None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, InstrlibError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
