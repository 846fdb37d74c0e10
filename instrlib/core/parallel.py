"""Tasks in several processes or on a Dask cluster, one thread each; Keras without its startup messages."""

import asyncio
import builtins
import contextlib
import os
import pickle
import secrets
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.managers import BaseManager
from types import ModuleType
from typing import Any

from instrlib.core.cache import key
from instrlib.core.io import ConfigError, WorkerError

_LIBRARIES = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
_ONE_THREAD = {f"{library}_THREADS": "1" for library in _LIBRARIES}  # read when a library is first imported

_IDLE_S = 300  # idle processes end after this time; until then the next call finds TensorFlow imported
_CONNECT_S = 5.0
_NO_WORKER_S = 60.0

_size = 0  # of the pool of processes, which never shrinks: its processes are warm or serve another call
_running: list[str] = []  # the call of `parallel_map` to which each running task belongs
_pooling = threading.Lock()  # two threads that import joblib at the same time get a part of it
_stderr = threading.RLock()  # two threads that redirect stderr in turns would leave it redirected


def n_workers() -> int:
    """Return the number of processes: INSTRLIB_WORKERS, else the available cores."""
    text = os.environ.get("INSTRLIB_WORKERS", "")
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigError(f"INSTRLIB_WORKERS must be an integer, not {text!r}.")
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return int(text or 0) or len(cores)


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

    If INSTRLIB_SCHEDULER names a Dask scheduler ("tcp://host:8786"), tasks run on its workers; start each from this
    environment with `dask worker tcp://host:8786 --nthreads 1`.

    Raises
    ------
    WorkerError
        When a process is killed, or when the cluster cannot be reached, has no worker or runs other code.
    """
    if not tasks:
        return
    scheduler, workers = os.environ.get("INSTRLIB_SCHEDULER", ""), min(workers or n_workers(), len(tasks))
    if scheduler or workers > 1 or isolate:
        import cloudpickle  # also pickles functions of a notebook

        calls = [cloudpickle.dumps((function, task)) for task in tasks]
        results = _on_cluster(calls, scheduler, describe) if scheduler else _in_processes(calls, workers, describe)
    else:
        results = (function(*task) for task in tasks)
    with contextlib.closing(results):
        yield from track(results, total=len(tasks), describe=describe)


def track(items: Iterable[Any], *, total: int, describe: str) -> Iterator[Any]:
    """Yield the items with a progress bar in terminals and notebooks; logs and executed copies stay empty."""
    from tqdm.auto import tqdm

    in_notebook = hasattr(getattr(builtins, "get_ipython", lambda: None)(), "kernel")
    disable = os.environ.get("TQDM_DISABLE") == "1" if in_notebook else None  # None: in a terminal only
    yield from tqdm(items, total=total, desc=describe, leave=False, disable=disable)


class Processes:
    """The worker processes of this process; `shared_processes` lets the kernels of a study use them too."""

    def run(self, call: bytes, workers: int, owner: str) -> Any:
        """Return the result of a task of `owner`, computed by one of at least `workers` processes."""
        _running.append(owner)
        try:
            return self._pool(workers).submit(_call, call).result()
        finally:
            _running.remove(owner)

    def end(self, owner: str | None = None) -> None:
        """Kill the processes, because running tasks cannot be stopped otherwise, unless another owner uses them."""
        if _size and (owner is None or set(_running) <= {owner}):
            self._pool(_size).shutdown(kill_workers=True)

    def _pool(self, workers: int) -> Any:
        global _size  # noqa: PLW0603
        with _pooling:
            from joblib.externals.loky import get_reusable_executor

            _size = max(_size, workers)
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)  # the pool has grown
            return get_reusable_executor(_size, timeout=_IDLE_S, env=_ONE_THREAD)


BaseManager.register("processes", callable=Processes)  # for processes of this user that know its key


@contextlib.contextmanager
def shared_processes() -> Iterator[dict[str, str]]:
    """Share the processes of this process, which stay warm; yield the variables with which kernels find them."""
    if os.environ.get("INSTRLIB_PROCESSES") or os.environ.get("INSTRLIB_SCHEDULER"):
        yield {}
        return
    secret = secrets.token_bytes(32)
    server = BaseManager(authkey=secret).get_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"INSTRLIB_PROCESSES": f"{server.address} {secret.hex()}"}
    finally:
        Processes().end()


def _in_processes(calls: Sequence[bytes], workers: int, describe: str) -> Iterator[Any]:
    """Compute in the shared processes that INSTRLIB_PROCESSES names, else in those of this process."""
    address, _, secret = os.environ.get("INSTRLIB_PROCESSES", "").rpartition(" ")
    processes, owner = Processes(), secrets.token_hex(8)
    if address:
        manager = BaseManager(address, authkey=bytes.fromhex(secret))
        manager.connect()
        processes = manager.processes()
    with ThreadPoolExecutor(workers) as threads:  # each waits for a task
        futures = [threads.submit(processes.run, call, workers, owner) for call in calls]
        try:
            yield from _in_order(futures, as_completed)
        except BrokenProcessPool:
            raise WorkerError(
                f"A process for {describe!r} was killed, most likely because memory ran out; run the same again "
                "with a smaller INSTRLIB_WORKERS or more memory (finished parts are kept)."
            ) from None
        finally:
            if [future for future in futures if not future.cancel() and not future.done()]:
                processes.end(owner)


def _on_cluster(calls: Sequence[bytes], address: str, describe: str) -> Iterator[Any]:
    import logging

    import distributed

    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # keeps stderr of notebooks empty
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    warnings.filterwarnings("ignore", category=distributed.versions.VersionMismatchWarning)  # keys contain the versions
    with contextlib.ExitStack() as stack:
        try:
            with ThreadPoolExecutor(1) as thread:  # notebooks already run an event loop
                thread.submit(asyncio.run, _probe(address)).result()
            client = distributed.Client(address, timeout=_CONNECT_S)
            stack.enter_context(client).wait_for_workers(1, timeout=_NO_WORKER_S)
        except Exception as error:  # another service at this port can cause any error
            raise WorkerError(
                f"No Dask scheduler with a worker answers at {address!r}; start `dask scheduler` and for each core "
                f"`dask worker {address} --nthreads 1`, or unset INSTRLIB_SCHEDULER to work on this machine."
            ) from error
        futures = client.map(_call, calls, code=key("studies"), pure=False)  # bytes import nothing
        try:
            yield from _in_order(futures, distributed.as_completed)
        except (distributed.KilledWorker, CancelledError):
            raise WorkerError(
                f"The Dask scheduler at {address}, or every worker that ran a task of {describe!r}, ended, most likely "
                "because memory ran out; see their logs and run the same again (finished parts are kept)."
            ) from None
        finally:
            if left := {future.key for future in futures if not future.done()}:
                with contextlib.suppress(Exception):  # the scheduler may be gone
                    busy = [worker for worker, own in client.processing().items() if left.intersection(own)]
                    client.cancel(futures)
                    client.restart_workers(busy, timeout=20, raise_for_error=False)  # threads cannot be stopped


async def _probe(address: str) -> None:
    """Raise if a service does not answer like a scheduler; the client would wait for it without limit."""
    from distributed.comm import connect

    comm = await asyncio.wait_for(connect(address, timeout=_CONNECT_S), _CONNECT_S)
    await comm.close()


def _in_order(futures: Sequence[Any], as_completed: Callable[..., Iterator[Any]]) -> Iterator[Any]:
    """Yield results in order and raise errors immediately."""
    numbers, results, wanted = {future: number for number, future in enumerate(futures)}, {}, 0
    for future in as_completed(futures):
        results[numbers[future]] = future.result()
        while wanted in results:
            yield results.pop(wanted)
            wanted += 1


def _call(call: bytes, code: str = "") -> Any:
    """Run a task in a worker process; `code` is the key that a Dask worker must have."""
    from threadpoolctl import threadpool_limits

    if code:
        from distributed import get_worker

        worker = get_worker()
        used = "tensorflow" in sys.modules and os.environ.get("TF_NUM_INTRAOP_THREADS") != "1"
        if worker.state.nthreads != 1 or used or code != key("studies"):
            raise WorkerError(
                f"The Dask worker {worker.address} has several threads or runs other code or versions; start it again "
                f"from this environment with `dask worker {worker.scheduler.address} --nthreads 1`."
            )
    # Variables affect later imports, the limit affects earlier ones. Parallel work inside a task stays in its process.
    os.environ |= _ONE_THREAD | {"INSTRLIB_SCHEDULER": "", "INSTRLIB_PROCESSES": "", "INSTRLIB_WORKERS": "1"}
    function, task = pickle.loads(call)
    with threadpool_limits(1):
        return function(*task)


def load_keras() -> ModuleType:
    """Import and return Keras 3, without output on stderr, which would appear in notebooks."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_stderr():  # the first messages precede that setting
        import keras
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")  # it warns about many networks in one process
    return keras


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Discard output to file descriptor 2, to which TensorFlow writes from C++, bypassing sys.stderr."""
    with _stderr:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)
