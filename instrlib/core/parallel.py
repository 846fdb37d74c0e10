"""Tasks in several processes or on a Dask cluster, one thread each; Keras without its startup messages."""

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
from types import ModuleType
from typing import Any

from instrlib.core.cache import key
from instrlib.core.io import ConfigError, WorkerError

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
_STDERR = threading.RLock()  # two threads that redirect stderr in turns would leave it redirected


def n_workers(requested: int | None = None) -> int:
    """Return the number of processes: `requested`, else INSTRLIB_WORKERS, else the available cores."""
    if requested is None:
        text = os.environ.get("INSTRLIB_WORKERS", "")
        if text and not (text.isascii() and text.isdigit()):
            raise ConfigError(f"INSTRLIB_WORKERS must be an integer, not {text!r}.")
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
    """Yield `function(*task)` for every task, in order, computed in several processes.

    Each process uses one thread, so results do not depend on the number of processes. With one worker, tasks run in
    this process, unless `isolate` requests another one: TensorFlow fixes its number of threads, and thus the last bits
    of a result, at its first use in a process. The first failing task cancels the others.

    The notebooks of a study share the processes of `shared_processes`. If INSTRLIB_SCHEDULER names a Dask scheduler
    ("tcp://host:8786"), tasks run on its workers; start each from this environment with `dask worker tcp://host:8786
    --nthreads 1`.

    Raises
    ------
    WorkerError
        When a process is killed, or when the cluster cannot be reached, has no worker or runs other code.

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
    """Yield the items with a progress bar in terminals and notebooks; logs stay empty."""
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
    # Processes that have grown are replaced.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    # The pool never shrinks: its processes are warm or serve another generator; `workers` limits the running tasks.
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
            f"A process for {describe!r} was killed, most likely because memory ran out; "
            f"run the same again {fewer} (finished parts are kept)."
        ) from None
    finally:
        _open -= 1
        left = [future for future in started if not future.done() and not future.cancel()]
        if left and not _open:  # running tasks without a consumer
            _end_processes()


@contextlib.contextmanager
def shared_processes() -> Iterator[dict[str, str]]:
    """Share the processes of this process with kernels; yield the environment variables that a kernel needs.

    A kernel sends its tasks over a local connection. When the kernel ends, its running tasks are cancelled.
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
            continue  # another program, or a killed kernel
        except OSError:
            return  # closed


class _KernelEnded(Exception):
    """The kernel closed its connection; its results are no longer needed."""


def _serve(connection: Any) -> None:
    def look() -> None:
        if connection.poll():  # kernels send nothing after their tasks, so the connection was closed
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
                error.add_note(str(error.__cause__ or ""))  # the traceback in the process
                send(_pickled((False, error)))


def _call(call: bytes) -> bytes:
    function, task = pickle.loads(call)
    return _pickled((True, function(*task)))


def _pickled(value: Any) -> bytes:
    import cloudpickle  # also pickles functions of a notebook

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
    """Run tasks, at most `window` at a time; yield results in order and raise errors immediately."""
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
        # As bytes, so that an unsuitable worker imports nothing.
        calls = [_pickled((function, task)) for task in tasks]
        futures = client.map(_call_on_worker, calls, code=key("studies"), pure=False)
        started: list[Any] = []
        starts = (functools.partial(lambda future: future, future) for future in futures)
        try:
            yield from _in_order(started, starts, len(futures))
        except distributed.KilledWorker as error:
            raise WorkerError(
                f"A task of {describe!r} ended {error.allowed_failures + 1} Dask workers, most likely because memory "
                "ran out; see the logs of the workers and give them more memory."
            ) from None
        except CancelledError:
            raise WorkerError(
                f"The Dask scheduler at {address} stopped during {describe!r}; start it again, or unset "
                "INSTRLIB_SCHEDULER to work on this machine (finished parts are kept)."
            ) from None
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                _stop(client, [future for future in futures if not future.done()])


def _stop(client: Any, futures: list[Any]) -> None:
    """Cancel tasks and restart the workers that run one, because threads cannot be stopped."""
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
        logging.getLogger(name).setLevel(logging.CRITICAL)  # keeps stderr of notebooks empty
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    warnings.filterwarnings("ignore", category=distributed.versions.VersionMismatchWarning)  # keys contain the versions
    unset = "or unset INSTRLIB_SCHEDULER to work on this machine."

    async def probe() -> None:
        comm = await asyncio.wait_for(connect(address, timeout=_CONNECT_S), _CONNECT_S)
        await comm.close()

    try:
        # The client has no timeout. In a thread, because notebooks already run an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(probe())).result()
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except Exception as error:  # another service at this port can cause any error
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
    # Variables affect later imports, the limit affects earlier ones. Parallel work inside a task
    # stays in its process, because it would wait for this worker.
    os.environ |= _ONE_THREAD | {"INSTRLIB_SCHEDULER": "", "INSTRLIB_WORKERS": "1"}
    function, task = pickle.loads(call)
    with threadpool_limits(1):
        return function(*task)


def load_keras() -> ModuleType:
    """Import and return Keras 3, without output on stderr, which would appear in notebooks."""
    if "tensorflow" in sys.modules:
        import keras

        return keras
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_stderr():  # the first messages precede that setting
        import keras
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")  # it warns about many networks in one process
    return keras


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Discard output to file descriptor 2, to which TensorFlow writes from C++, bypassing sys.stderr."""
    with _STDERR:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)
