"""Work runs in processes or on a Dask cluster; results come in order and are the same everywhere."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from instrlib.core import parallel
from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, WorkerError, read_arrays
from instrlib.core.parallel import n_workers, parallel_map
from instrlib.models import train, trained

HERE = Path(__file__).parent


def _who(number: int) -> tuple[int, int]:
    return number, os.getpid()


def _threads(_number: int) -> tuple[set[int], str | None, str | None]:
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    blas = {library["num_threads"] for library in threadpool_info()}
    return blas, os.environ.get("OMP_NUM_THREADS"), os.environ.get("TF_NUM_INTRAOP_THREADS")


def _is_killed(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _killed_once(number: int, folder: Path) -> int:
    if number == 3 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.killpg(0, signal.SIGKILL)  # the worker and the nanny that would start it again
    return number**2


def _long(folder: Path) -> None:
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def _fails_while_another_runs(number: int, folder: Path) -> None:
    if number == 0:
        _long(folder)
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        time.sleep(0.01)
    raise ConfigError("this one failed at once.")


def _nested(_number: int) -> tuple[int, set[int]]:
    return os.getpid(), {pid for _, pid in parallel_map(_who, [(0,), (1,)])}


def _trains_and_is_killed_once(marker: Path | None, *task: object) -> Path:
    if marker and not marker.exists():
        marker.touch()
        threading.Timer(1.0, os.killpg, (0, signal.SIGKILL)).start()  # long before it can have finished
    return train.train_model(*task)


def _is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


class Cluster:
    """A Dask scheduler and its workers, each a process group on loopback, as the commands start them."""

    def __init__(self, folder: Path, workers: int, threads: int) -> None:
        self._folder, self._started = folder, []
        record = folder / "scheduler.json"
        self._run("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(record))
        while not (record.exists() and record.read_text()):
            time.sleep(0.02)
        self.address = json.loads(record.read_text())["address"]
        for _ in range(workers):
            self._run("worker", self.address, "--nthreads", str(threads), "--local-directory", str(folder))

    def kill(self) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _run(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # this file's functions travel by name
        with (self._folder / "log").open("a") as log:
            self._started.append(
                subprocess.Popen(command, stderr=log, cwd=self._folder, env=environment, start_new_session=True)
            )


@pytest.fixture
def start(tmp_path_factory, monkeypatch) -> Iterator[Callable[..., Cluster]]:
    """Return what starts a cluster for `parallel_map`; it ends with the test."""
    clusters = []

    def start_one(*, workers: int = 2, threads: int = 1) -> Cluster:
        clusters.append(Cluster(tmp_path_factory.mktemp("dask"), workers, threads))
        monkeypatch.setenv("INSTRLIB_SCHEDULER", clusters[-1].address)
        return clusters[-1]

    yield start_one
    for cluster in clusters:
        cluster.kill()


def test_results_come_in_order_from_this_process_or_from_warm_ones():
    def pids(n: int, workers: int, **options: bool) -> set[int]:
        found = list(parallel_map(_who, [(number,) for number in range(n)], workers=workers, **options))
        assert [number for number, _ in found] == list(range(n))
        return {pid for _, pid in found}

    assert pids(7, 1) == {os.getpid()} and pids(0, 2) == set()
    warm = pids(8, 2)
    assert os.getpid() not in warm
    assert pids(1, 1, isolate=True) <= warm and pids(8, 2) <= warm
    power = 3
    assert list(parallel_map(lambda x: x**power, [(1,), (2,)], workers=2)) == [1, 8], "as in a notebook"


def test_kernels_of_a_study_share_warm_processes_that_end_with_it():
    imports = "import os; from instrlib.core.parallel import parallel_map"
    kernel = f"{imports}; print(*parallel_map(os.getpid, [()] * 9, workers=2))"

    def pids() -> set[int]:
        command = [sys.executable, "-c", kernel]
        printed = subprocess.run(command, env=os.environ | shared, capture_output=True, text=True, check=True).stdout
        return set(map(int, printed.split()))

    with parallel.shared_processes() as shared:
        first, second = pids(), pids()
        assert first and len(first | second) <= parallel._size and os.getpid() not in first
    for pid in first:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_numerical_libraries_get_one_thread_in_every_process(workers):
    assert list(parallel_map(_threads, [(0,), (1,)], workers=workers, isolate=True)) == [({1}, "1", "1")] * 2


@pytest.mark.parametrize("where", ["here", "cluster"])
def test_an_error_keeps_its_kind_and_ends_the_other_tasks(where, start, tmp_path):
    if where == "cluster":
        start()
    with pytest.raises(ConfigError, match=r"^this one failed at once\.$"):
        list(parallel_map(_fails_while_another_runs, [(n, tmp_path) for n in range(2)], workers=2))
    assert _is_gone(int((tmp_path / "pid").read_text()))
    assert [number for number, _ in parallel_map(_who, [(0,), (1,)], workers=2)] == [0, 1]


def test_a_caller_that_wants_no_more_results_ends_its_tasks_and_not_those_of_another():
    results, others = (parallel_map(time.sleep, [(0.2,)] * n, workers=2) for n in (100, 6))
    next(results), next(others)
    results.close()
    assert list(others) == [None] * 5
    assert [number for number, _ in parallel_map(_who, [(0,), (1,)], workers=2)] == [0, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_is_killed_is_one_error_and_the_next_call_starts_afresh(workers):
    with pytest.raises(WorkerError, match="counting"):
        list(parallel_map(_is_killed, [(n,) for n in range(4)], workers=workers, describe="counting", isolate=True))
    assert list(parallel_map(pow, [(2, 1), (2, 2)], workers=workers, isolate=True)) == [2, 4]


def test_the_number_of_workers_can_be_set_from_outside(monkeypatch):
    monkeypatch.setenv("INSTRLIB_WORKERS", "3")
    assert n_workers() == 3
    assert n_workers(5) == 5
    for text in ("many", "²", "-1", "1.5"):
        monkeypatch.setenv("INSTRLIB_WORKERS", text)
        with pytest.raises(ConfigError, match="INSTRLIB_WORKERS"):
            n_workers()
    monkeypatch.delenv("INSTRLIB_WORKERS")
    assert n_workers() >= 1


def test_a_dask_cluster_gives_the_same_results_in_order_with_one_thread_each(start):
    start()
    results = list(parallel_map(_who, [(n,) for n in range(40)], workers=1))
    assert [number for number, _ in results] == list(range(40))
    pids = {pid for _, pid in results}
    assert len(pids) == 2 and os.getpid() not in pids
    assert list(parallel_map(_threads, [(n,) for n in range(4)])) == [({1}, "1", "1")] * 4
    assert all(pid in pids and inner == {pid} for pid, inner in parallel_map(_nested, [(0,), (1,)]))


def test_a_killed_dask_worker_loses_nothing_and_a_task_that_kills_them_all_is_one_sentence(start, tmp_path):
    start()
    assert list(parallel_map(_killed_once, [(n, tmp_path) for n in range(8)])) == [n**2 for n in range(8)]
    with pytest.raises(WorkerError, match="counting"):
        list(parallel_map(_is_killed, [(n,) for n in range(4)], describe="counting"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "here", "ftp://127.0.0.1:1", "silent", "without worker"])
def test_a_scheduler_that_is_not_there_or_has_no_worker_is_one_sentence(address, start, monkeypatch):
    monkeypatch.setattr(parallel, "_CONNECT_S", 0.5)
    monkeypatch.setattr(parallel, "_NO_WORKER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # as a dashboard, it waits for a request
        if address == "silent":
            address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        elif address == "without worker":
            address = start(workers=0).address
        monkeypatch.setenv("INSTRLIB_SCHEDULER", address)
        with pytest.raises(WorkerError, match=address):
            list(parallel_map(_who, [(0,)]))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_dask_worker_with_several_threads_or_other_code_is_refused(start, monkeypatch, threads):
    start(workers=1, threads=threads)
    if threads == 1:
        monkeypatch.setattr(parallel, "key", lambda layer: "other")
    with pytest.raises(WorkerError, match="nthreads 1"):
        list(parallel_map(_who, [(0,)]))


def test_a_scheduler_that_goes_away_is_one_sentence_and_nothing_is_written_to_stderr(start, tmp_path):
    cluster = start(workers=1)
    code = (
        "import pathlib, sys, instrlib.core.parallel, instrlib.core.io, test_parallel\n"
        "try:\n"
        f"    list(instrlib.core.parallel.parallel_map(test_parallel._long, [(pathlib.Path({str(tmp_path)!r}),)]))\n"
        "except instrlib.core.io.WorkerError as error:\n"
        "    print(error)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "pid").exists():
        time.sleep(0.05)
    cluster.kill()
    out, err = run.communicate(timeout=60)
    assert cluster.address in out
    assert err == ""


@pytest.mark.slow
def test_training_gives_the_same_bits_from_one_process_two_and_a_cluster_that_loses_a_worker(small, start, tmp_path):
    variant = train.Variant("small", "small", TrainConfig(epochs=1), small.store.folder)

    def results(name: str, *, workers: int | None = None, marker: Path | None = None) -> list[list]:
        tasks = [
            (marker if seed == 1 else None, tmp_path / name / str(seed), variant, small.split_path, seed)
            for seed in (0, 1)
        ]
        runs = list(parallel_map(_trains_and_is_killed_once, tasks, workers=workers, isolate=True))
        return [
            [*trained.load_model(run)[0].get_weights(), *read_arrays(run / "validation.npz").values()] for run in runs
        ]

    one, two = results("one", workers=1), results("two", workers=2)
    start()
    cluster = results("cluster", marker=tmp_path / "killed")
    assert (tmp_path / "killed").exists()
    for first, *others in zip(one, two, cluster, strict=True):
        assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    assert not np.array_equal(one[0][0], one[1][0]), "seeds differ"
