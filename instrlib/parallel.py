"""One way to fan work out: joblib's processes on one machine, each with one thread for its numerics."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from instrlib.errors import ConfigError
from instrlib.progress import track

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables that set the threads of numerical libraries; joblib sets them, and more, for its own processes."""


def n_workers(requested: int | None = None) -> int:
    """Return how many processes to use: `requested`, else `INSTRLIB_WORKERS`, else the cores this process may use."""
    if requested is None:
        text = os.environ.get("INSTRLIB_WORKERS", "")
        if text and not text.isdigit():
            raise ConfigError(f"INSTRLIB_WORKERS must be a whole number, not {text!r}.")
        requested = int(text or 0)
    if requested > 0:
        return requested
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fan_out(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    workers: int | None = None,
    describe: str = "working",
    isolate: bool = False,
) -> Iterator[Any]:
    """Call `function(*task)` for every task, in several processes, and yield the results in the order of the tasks.

    Each process that is started gets one thread for BLAS, OpenMP and TensorFlow: many small processes beat one with
    many threads on networks of this size, and a result does not depend on the number of processes.

    Parameters
    ----------
    function : callable
        A function of a module (it travels to the workers by name).
    tasks : sequence of tuple
        The arguments of each call.
    workers : int, optional
        Number of processes; see `n_workers`. With one, everything runs in this process.
    describe : str
        What the progress bar calls the work.
    isolate : bool
        Leave this process even with one worker: for functions that use TensorFlow, whose number of threads, and with
        it the last bits of a result, are settled when it is first used in a process.

    Yields
    ------
    object
        The result of each task, in order, as soon as it and all before it are there.

    Examples
    --------
    >>> list(fan_out(pow, [(2, 3), (3, 2)], workers=1))
    [8, 9]
    """
    workers = min(n_workers(workers), max(len(tasks), 1))
    in_order = _here if workers == 1 and not isolate else _elsewhere
    yield from track(in_order(function, tasks, workers), total=len(tasks), describe=describe)


def _here(function: Callable[..., Any], tasks: Sequence[tuple], _workers: int) -> Iterator[Any]:
    for task in tasks:
        yield function(*task)


def _elsewhere(function: Callable[..., Any], tasks: Sequence[tuple], workers: int) -> Iterator[Any]:
    import joblib
    from joblib.externals.loky import ProcessPoolExecutor

    if workers == 1:  # joblib would stay in this process
        with ProcessPoolExecutor(max_workers=1, env=dict.fromkeys(_THREADS, "1")) as pool:
            yield from pool.map(_call, [function] * len(tasks), tasks)
        return
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        pool = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1)
        yield from pool(joblib.delayed(_call)(function, task) for task in tasks)


def _call(function: Callable[..., Any], task: tuple) -> Any:
    # Read by TensorFlow when it is first imported, which happens inside `function`.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    return function(*task)
