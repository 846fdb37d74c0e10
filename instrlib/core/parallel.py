"""One way to fan work out: processes on this machine, or a Dask cluster; one thread for the numerics of each."""

import contextlib
import functools
import os
import queue
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from instrlib.core.errors import ConfigError, WorkerError
from instrlib.core.files import hash_file, hash_json
from instrlib.core.progress import track

_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)
"""Variables that numerical libraries read when they are first imported in a process."""

_IDLE_S = 300.0
"""Processes that wait so long for work end; until then the next call of `fan_out` finds TensorFlow imported."""

_CONNECT_S = 5.0
"""A scheduler that has not answered by then is taken for absent."""

_NO_WORKER_S = 60.0
"""A cluster without a worker for so long is given up; one that is just being started has one by then."""

_RESTART_S = 20.0
_LOOK_EVERY_S = 1.0


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

    Each process gets one thread for BLAS, OpenMP and TensorFlow: many small processes beat one with many threads on
    networks of this size, and a result does not depend on the number of processes. A task that fails ends the others.

    When `INSTRLIB_SCHEDULER` names a Dask scheduler ("tcp://host:8786"), the tasks run on its workers instead, with
    the same results; `workers` and `INSTRLIB_WORKERS` do not count then. A task whose worker dies is given to another
    one, until it has ended four workers (Dask's setting `distributed.scheduler.allowed-failures`). The workers are
    started from this environment, with one thread each (`dask worker tcp://host:8786 --nthreads 1`, once for each
    core), and see the same files under the same paths.

    Parameters
    ----------
    function : callable
        A function of a module (it travels to the workers by name).
    tasks : sequence of tuple
        The arguments of each call.
    workers : int, optional
        Number of processes; see `n_workers`. With one, everything runs in this process.
    describe : str
        What the progress bar, and an error, call the work.
    isolate : bool
        Leave this process even with one worker: for functions that use TensorFlow, whose number of threads, and with
        it the last bits of a result, are settled when it is first used in a process.

    Yields
    ------
    object
        The result of each task, in order, as soon as it and all before it are there.

    Raises
    ------
    WorkerError
        When a process is killed on this machine, a task has ended too many Dask workers, or the cluster cannot be
        used: no scheduler, no workers, workers with several threads or with other code.
    Exception
        What a task raises, as it is, and as soon as it is raised.

    Examples
    --------
    >>> list(fan_out(pow, [(2, 3), (3, 2)], workers=1))
    [8, 9]
    """
    if not tasks:
        return
    scheduler = os.environ.get("INSTRLIB_SCHEDULER", "")
    workers = min(n_workers(workers), len(tasks))
    if scheduler:
        results = _on_cluster(function, tasks, scheduler, describe)
    elif workers > 1 or isolate:
        results = _in_processes(function, tasks, workers, describe)
    else:
        results = (function(*task) for task in tasks)
    with contextlib.closing(results):
        yield from track(results, total=len(tasks), describe=describe)


def _in_processes(function: Callable[..., Any], tasks: Sequence[tuple], workers: int, describe: str) -> Iterator[Any]:
    from joblib.externals.loky import BrokenProcessPool, get_reusable_executor

    # A process that has grown is replaced by a fresh one, which is no news for a notebook.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    pool = get_reusable_executor(workers, timeout=_IDLE_S, env=_ONE_THREAD)
    try:
        yield from _in_order([pool.submit(function, *task) for task in tasks])
    except BrokenProcessPool:
        fewer = f"with fewer processes (INSTRLIB_WORKERS={workers - 1})" if workers > 1 else "with more memory"
        raise WorkerError(
            f"One of the processes for {describe!r} was killed, most likely because the memory ran out; "
            f"run the same again {fewer}, and what is finished is kept."
        ) from None
    except BaseException:  # an interrupt, and a caller who wants no more results, as well
        # Its own way to end them stumbles over tasks that still wait; a process that died makes it clear all away.
        for pid in list(pool._processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pool.shutdown()
        raise


def _on_cluster(function: Callable[..., Any], tasks: Sequence[tuple], address: str, describe: str) -> Iterator[Any]:
    import pickle
    from concurrent.futures import CancelledError

    distributed = _load_distributed()
    client = _connect(address)
    with client:
        # A call travels as bytes, so that neither the scheduler nor a worker that is not fit for it imports anything.
        calls = [pickle.dumps((function, task)) for task in tasks]
        futures = client.map(_call_on_worker, calls, code=_code(), pure=False)
        try:
            yield from _in_order(futures, _WorkerWatch(client, address))
        except distributed.KilledWorker as error:
            _stop(client, futures)
            raise WorkerError(
                f"A task of {describe!r} ended {error.allowed_failures + 1} Dask workers one after the other, most "
                "likely because the memory ran out; see the workers' logs and give them more."
            ) from None
        except CancelledError:
            raise WorkerError(
                f"The Dask scheduler at {address} went away during {describe!r}; start it again, or unset "
                "INSTRLIB_SCHEDULER to work on this machine, and run the same again: what is finished is kept."
            ) from None
        except BaseException:
            _stop(client, futures)
            raise


def _in_order(futures: list[Any], look: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """Yield the futures' results in order, and raise an error as soon as there is one; `look` is called in between."""
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: finished.put(number))
    results: dict[int, Any] = {}
    for wanted in range(len(futures)):
        while wanted not in results:
            try:
                number = finished.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                look()
            else:
                results[number] = futures[number].result()
        yield results.pop(wanted)


def _connect(address: str) -> Any:
    """Return a client of the scheduler there."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from distributed import Client
    from distributed.comm import connect

    async def probe() -> None:
        comm = await asyncio.wait_for(connect(address, timeout=_CONNECT_S), _CONNECT_S)
        await comm.close()

    try:
        # The client itself waits for ever for a greeting. A thread, because a notebook's own has a loop already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(probe())).result()
        return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except Exception as error:  # a port of something else can answer anything
        raise WorkerError(
            f"No Dask scheduler answers at {address!r}, which INSTRLIB_SCHEDULER names; start it with `dask scheduler` "
            "or unset INSTRLIB_SCHEDULER to work on this machine."
        ) from error


class _WorkerWatch:
    """Gives up a cluster that has had no worker for too long."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address, self._seen = client, address, time.monotonic()

    def __call__(self) -> None:
        if self._client.scheduler_info(n_workers=1)["workers"]:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _NO_WORKER_S:
            raise WorkerError(
                f"The Dask scheduler at {self._address} has had no worker for {_NO_WORKER_S:.0f} s; start one for each "
                f"core with `dask worker {self._address} --nthreads 1`, or unset INSTRLIB_SCHEDULER to work on this "
                "machine."
            )


def _stop(client: Any, futures: list[Any]) -> None:
    """Forget what waits and end what runs: a thread of a worker cannot be ended, its process can."""
    ours = {future.key for future in futures}
    with contextlib.suppress(Exception):  # what went wrong before is what matters
        busy = [worker for worker, keys in client.processing().items() if ours.intersection(keys)]
        client.cancel(futures)
        if busy:
            client.restart_workers(busy, timeout=_RESTART_S, raise_for_error=False)


def _load_distributed() -> Any:
    """Import Dask's client and return it; nothing of its log is written to stderr, which would end up in a notebook."""
    import logging

    import distributed

    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    warnings.filterwarnings("ignore", category=distributed.versions.VersionMismatchWarning)  # see `_code`
    return distributed


@functools.cache
def _code() -> str:
    """Hash of the versions that decide the numbers and of this library's files when this process first asked."""
    from instrlib.core.provenance import versions

    package = Path(__file__).parents[1]
    files = {path.relative_to(package).as_posix(): hash_file(path) for path in sorted(package.rglob("*.py"))}
    return hash_json([versions(), files])


def _call_on_worker(call: bytes, *, code: str) -> Any:
    import pickle

    from distributed import get_worker
    from threadpoolctl import threadpool_limits

    worker = get_worker()
    again = f"start it again with `dask worker {worker.scheduler.address} --nthreads 1`"
    if worker.state.nthreads != 1:
        raise WorkerError(
            f"The Dask worker {worker.address} has {worker.state.nthreads} threads, and two tasks in one process would "
            f"share TensorFlow's seed; {again}."
        )
    if code != _code():
        raise WorkerError(
            f"The Dask worker {worker.address} runs other code or other versions of the packages than this process; "
            f"{again} from this environment."
        )
    if "tensorflow" in sys.modules and os.environ.get("TF_NUM_INTRAOP_THREADS") != "1":
        raise WorkerError(f"The Dask worker {worker.address} has used TensorFlow with several threads; {again}.")
    # One thread: the variables for what is imported from here on, the limit for what was imported before. What a task
    # fans out stays in its process: it would wait for this very worker.
    os.environ |= _ONE_THREAD | {"INSTRLIB_SCHEDULER": "", "INSTRLIB_WORKERS": "1"}
    _leave_random_alone()
    function, task = pickle.loads(call)
    with threadpool_limits(1):
        return function(*task)


def _leave_random_alone() -> None:
    """Give Dask's own threads a generator of their own.

    They draw from Python's global one, to estimate sizes and to spread connections, while a task has it seeded: Keras
    takes its seeds from there, so now and then a network would begin with other weights.
    """
    own, shared = random.Random(), random.random.__self__
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("dask", "distributed", "tornado"):
            for used, value in list(vars(module).items()):
                if value is random:
                    setattr(module, used, own)
                elif getattr(value, "__self__", None) is shared:
                    setattr(module, used, getattr(own, value.__name__))
