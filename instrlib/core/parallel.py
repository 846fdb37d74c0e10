"""Work in several processes, or on a Dask cluster; one thread for the numerics of each process."""

import contextlib
import functools
import os
import pickle
import queue
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

from instrlib.core.cache import key
from instrlib.core.errors import ConfigError, WorkerError

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
"""Idle processes end after this time; until then the next call finds TensorFlow imported."""

_CONNECT_S = 5.0
_NO_WORKER_S = 60.0
_SHARED = "INSTRLIB_PROCESSES"
_open = 0


def n_workers(requested: int | None = None) -> int:
    """Return the number of processes: `requested`, else INSTRLIB_WORKERS, else the cores this process may use."""
    if requested is None:
        text = os.environ.get("INSTRLIB_WORKERS", "")
        if text and not (text.isascii() and text.isdigit()):
            raise ConfigError(f"INSTRLIB_WORKERS must be a whole number, not {text!r}.")
        requested = int(text or 0)
    if requested > 0:
        return requested
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    workers: int | None = None,
    describe: str = "working",
    isolate: bool = False,
) -> Iterator[Any]:
    """Yield `function(*task)` for every task, in the order of the tasks, computed in several processes.

    Each process uses one thread, so results do not depend on the number of processes. With one worker everything runs
    in this process, unless `isolate` asks for another: TensorFlow fixes its number of threads, and with it the last
    bits of a result, when it is first used in a process. The first task that fails ends the others.

    The notebooks of a study share the processes of `shared_processes`, which stay warm from one to the next.
    When INSTRLIB_SCHEDULER names a Dask scheduler ("tcp://host:8786"), the tasks run on its workers, which are started
    from this environment with one thread each (`dask worker tcp://host:8786 --nthreads 1`).

    Raises
    ------
    WorkerError
        When a process is killed, or the cluster cannot be reached, has no worker or runs other code.

    Examples
    --------
    >>> list(parallel_map(pow, [(2, 3), (3, 2)], workers=1))
    [8, 9]
    """
    if not tasks:
        return
    scheduler, workers = os.environ.get("INSTRLIB_SCHEDULER", ""), min(n_workers(workers), len(tasks))
    if scheduler:
        results = _on_cluster(function, tasks, scheduler, describe)
    elif (workers > 1 or isolate) and os.environ.get(_SHARED):
        results = _in_shared(function, tasks, workers, describe)
    elif workers > 1 or isolate:
        results = _in_processes(function, tasks, workers, describe)
    else:
        results = (function(*task) for task in tasks)
    with contextlib.closing(results):
        yield from track(results, total=len(tasks), describe=describe)


def track(items: Iterable[Any], *, total: int, describe: str) -> Iterator[Any]:
    """Yield the items with a progress bar in a terminal or a notebook; a log shows nothing."""
    import builtins

    from tqdm.auto import tqdm

    in_notebook = hasattr(getattr(builtins, "get_ipython", lambda: None)(), "kernel")
    yield from tqdm(items, total=total, desc=describe, leave=False, disable=False if in_notebook else None)


def _in_processes(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    workers: int,
    describe: str,
    look: Callable[[], None] = lambda: None,
) -> Iterator[Any]:
    from joblib.externals.loky import BrokenProcessPool, get_reusable_executor

    global _open  # noqa: PLW0603
    # A process that has grown is replaced by a fresh one.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    # Never a smaller pool: its processes are warm, or work for another generator; `workers` limits what is started.
    pool = get_reusable_executor(max(workers, getattr(_pool(), "_max_workers", 0)), timeout=_IDLE_S, env=_ONE_THREAD)
    started: list[Any] = []
    _open += 1
    try:
        yield from _in_order(
            started, (functools.partial(pool.submit, function, *task) for task in tasks), workers, look
        )
    except BrokenProcessPool:
        fewer = f"with fewer processes (INSTRLIB_WORKERS={workers - 1})" if workers > 1 else "with more memory"
        raise WorkerError(
            f"One of the processes for {describe!r} was killed, most likely because memory ran out; "
            f"run the same again {fewer}. Finished parts are kept."
        ) from None
    finally:
        _open -= 1
        left = [future for future in started if not future.done() and not future.cancel()]
        if left and not _open:  # they run, and nobody wants their results
            _end_processes()


@contextlib.contextmanager
def shared_processes() -> Iterator[dict[str, str]]:
    """Let kernels use the processes of this one; yields the variables that a kernel needs for it.

    A kernel sends its tasks over a local connection. When it ends, its running tasks end too.
    """
    from multiprocessing.connection import Listener

    secret = secrets.token_bytes(32)
    with Listener(authkey=secret) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        try:
            yield {_SHARED: f"{secret.hex()}:{listener.address}"}
        finally:
            _end_processes()


def _accept(listener: Any) -> None:
    from multiprocessing import AuthenticationError

    while True:
        try:
            threading.Thread(target=_serve, args=(listener.accept(),), daemon=True).start()
        except (EOFError, AuthenticationError, ConnectionError):
            continue  # another program, or a kernel that was just killed
        except OSError:
            return  # closed


class _KernelEnded(Exception):
    """The other side of a connection has gone; nobody wants the results."""


def _serve(connection: Any) -> None:
    """Do the tasks of one call of a kernel and send it the results, or the error."""

    def look() -> None:
        if connection.poll():  # a kernel sends nothing after its tasks, so this is the end of the connection
            raise _KernelEnded

    def send(value: bytes) -> None:
        try:
            connection.send_bytes(value)
        except OSError:
            raise _KernelEnded from None

    with connection, contextlib.suppress(_KernelEnded, EOFError, OSError):
        calls, workers, describe = connection.recv()
        results = _in_processes(_call, [(call,) for call in calls], workers, describe, look)
        with contextlib.closing(results):
            try:
                for result in results:
                    send(result)
            except _KernelEnded:
                raise
            except Exception as error:
                error.add_note(str(error.__cause__ or ""))  # where it was raised
                send(_pickled((False, error)))


def _call(call: bytes) -> bytes:
    function, task = pickle.loads(call)
    return _pickled((True, function(*task)))


def _pickled(value: Any) -> bytes:
    import cloudpickle  # takes functions of a notebook, too

    return cloudpickle.dumps(value)


def _in_shared(function: Callable[..., Any], tasks: Sequence[tuple], workers: int, describe: str) -> Iterator[Any]:
    from multiprocessing.connection import Client

    secret, _, address = os.environ[_SHARED].partition(":")
    with Client(address, authkey=bytes.fromhex(secret)) as connection:
        connection.send(([_pickled((function, task)) for task in tasks], workers, describe))
        for _ in tasks:
            done, result = pickle.loads(connection.recv_bytes())
            if not done:
                raise result
            yield result


def _pool() -> Any:
    from joblib.externals.loky import reusable_executor

    return reusable_executor._executor


def _end_processes() -> None:
    if pool := _pool():
        for pid in list(pool._processes or ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pool.shutdown()


def _in_order(
    started: list[Any], starts: Iterator[Callable[[], Any]], window: int, look: Callable[[], None] = lambda: None
) -> Iterator[Any]:
    """Start tasks, at most `window` at a time; yield results in order and raise an error as soon as there is one."""
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()
    results: dict[int, Any] = {}

    def start() -> bool:
        for begin in starts:
            number, future = len(started), begin()
            started.append(future)
            future.add_done_callback(lambda _, number=number: finished.put(number))
            return True
        return False

    while len(started) < window and start():
        pass
    wanted = 0
    while wanted < len(started):
        while wanted not in results:
            try:
                number = finished.get(timeout=1.0)
            except queue.Empty:
                look()
            else:
                results[number] = started[number].result()
                start()
        yield results.pop(wanted)
        wanted += 1


def _on_cluster(function: Callable[..., Any], tasks: Sequence[tuple], address: str, describe: str) -> Iterator[Any]:
    import distributed

    with _connect(address) as client:
        # As bytes, so that a worker that is not fit for the task imports nothing.
        calls = [_pickled((function, task)) for task in tasks]
        futures = client.map(_call_on_worker, calls, code=key("studies"), pure=False)
        started: list[Any] = []
        starts = (functools.partial(lambda future: future, future) for future in futures)
        try:
            yield from _in_order(started, starts, len(futures))
        except distributed.KilledWorker as error:
            raise WorkerError(
                f"A task of {describe!r} ended {error.allowed_failures + 1} Dask workers, most likely because memory "
                "ran out; see the workers' logs and give them more."
            ) from None
        except CancelledError:
            raise WorkerError(
                f"The Dask scheduler at {address} stopped during {describe!r}; start it again, or unset "
                "INSTRLIB_SCHEDULER to work on this machine. Finished parts are kept."
            ) from None
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                _stop(client, [future for future in futures if not future.done()])


def _stop(client: Any, futures: list[Any]) -> None:
    """Cancel tasks; a worker that is busy with one is restarted, since its thread cannot be stopped."""
    keys = {future.key for future in futures}
    busy = [worker for worker, own in client.processing().items() if keys.intersection(own)] if futures else []
    client.cancel(futures)
    if busy:
        client.restart_workers(busy, timeout=20, raise_for_error=False)


def _connect(address: str) -> Any:
    """Return a client of the scheduler at `address`, once it has a worker."""
    import asyncio
    import logging

    import distributed
    from distributed.comm import connect

    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a notebook's stderr stays empty
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    warnings.filterwarnings("ignore", category=distributed.versions.VersionMismatchWarning)  # keys tell
    unset = "or unset INSTRLIB_SCHEDULER to work on this machine."

    async def probe() -> None:
        comm = await asyncio.wait_for(connect(address, timeout=_CONNECT_S), _CONNECT_S)
        await comm.close()

    try:
        # The client waits without limit for an answer. In a thread, because a notebook runs an event loop already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(probe())).result()
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except Exception as error:  # a port of something else can answer anything
        raise WorkerError(
            f"No Dask scheduler answers at {address!r}; start it with `dask scheduler` {unset}"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_NO_WORKER_S)
    except TimeoutError:
        client.close()
        raise WorkerError(
            f"The Dask scheduler at {address} has no worker; start one for each core with "
            f"`dask worker {address} --nthreads 1` {unset}"
        ) from None
    return client


def _call_on_worker(call: bytes, *, code: str) -> Any:
    from distributed import get_worker
    from threadpoolctl import threadpool_limits

    worker = get_worker()
    again = f"start it again with `dask worker {worker.scheduler.address} --nthreads 1`"
    if worker.state.nthreads != 1:
        raise WorkerError(f"The Dask worker {worker.address} has {worker.state.nthreads} threads; {again}.")
    if code != key("studies"):
        raise WorkerError(
            f"The Dask worker {worker.address} runs other code or versions; {again} from this environment."
        )
    if "tensorflow" in sys.modules and os.environ.get("TF_NUM_INTRAOP_THREADS") != "1":
        raise WorkerError(f"The Dask worker {worker.address} has used TensorFlow with several threads; {again}.")
    # Variables for what is imported from here on, the limit for what was imported before. A task's own parallel work
    # stays in its process, since it would wait for this worker.
    os.environ |= _ONE_THREAD | {"INSTRLIB_SCHEDULER": "", "INSTRLIB_WORKERS": "1"}
    function, task = pickle.loads(call)
    with threadpool_limits(1):
        return function(*task)
