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
from pathlib import Path

import numpy as np
import pytest

from instrlib.core import parallel
from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, WorkerError, read_arrays
from instrlib.core.parallel import n_workers, parallel_map
from instrlib.models import train, trained

NUMBERS = [(number,) for number in range(8)]


def _who(number):
    return number, os.getpid()


def _threads(_number):
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    blas = {library["num_threads"] for library in threadpool_info()}
    return blas, os.environ.get("OMP_NUM_THREADS"), os.environ.get("TF_NUM_INTRAOP_THREADS")


def _is_killed(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _killed_once(number, folder):
    if number == 3 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.killpg(0, signal.SIGKILL)  # the worker and the nanny that would start it again
    return number


def _long(folder):
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def _fails_while_another_runs(number, folder):
    if number == 0:
        _long(folder)
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        time.sleep(0.01)
    raise ConfigError("this one failed at once.")


def _nested(_number):
    return os.getpid(), {pid for _, pid in parallel_map(_who, NUMBERS[:2])}


def _trains_and_is_killed_once(marker, *task):
    if marker and not marker.exists():
        marker.touch()
        threading.Timer(1.0, os.killpg, (0, signal.SIGKILL)).start()  # long before it can have finished
    return train.train_model(*task)


def _is_gone(pid):
    with contextlib.suppress(ProcessLookupError):
        for _ in range(600):
            os.kill(pid, 0)
            time.sleep(0.05)
        return False
    return True


def pids(tasks, **options):
    """Return the processes that computed the tasks, whose results are in order."""
    found = list(parallel_map(_who, tasks, **options))
    assert [(number,) for number, _ in found] == tasks
    return {pid for _, pid in found}


@pytest.fixture
def start(tmp_path_factory, monkeypatch):
    """Return what starts a scheduler and workers on loopback for `parallel_map`, and returns the address and both."""
    folder, started = tmp_path_factory.mktemp("dask"), []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # this file's functions travel by name

    def run(*arguments):
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        with (folder / "log").open("a") as log:
            started.append(subprocess.Popen(command, stderr=log, cwd=folder, env=environment, start_new_session=True))

    def start_one(*, workers=2, threads=1):
        record = folder / "record.json"
        run("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(record))
        while not (record.exists() and record.read_text()):
            time.sleep(0.02)
        address = json.loads(record.read_text())["address"]
        for _ in range(workers):
            run("worker", address, "--nthreads", str(threads))
        monkeypatch.setenv("INSTRLIB_SCHEDULER", address)
        return address, started

    yield start_one
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_results_come_in_order_from_this_process_or_from_warm_ones():
    assert pids(NUMBERS, workers=1) == {os.getpid()} and pids([], workers=2) == set()
    warm = pids(NUMBERS, workers=2)
    assert os.getpid() not in warm
    assert pids(NUMBERS[:1], workers=1, isolate=True) <= warm and pids(NUMBERS, workers=2) <= warm
    power = 3
    assert list(parallel_map(lambda x: x**power, [(1,), (2,)], workers=2)) == [1, 8], "as in a notebook"


def test_kernels_of_a_study_share_warm_processes_that_end_with_it():
    imports = "import os; from instrlib.core.parallel import parallel_map"
    command = [sys.executable, "-c", f"{imports}; print(*parallel_map(os.getpid, [()] * 9, workers=2))"]
    with parallel.shared_processes() as shared:
        runs = [subprocess.run(command, env=os.environ | shared, capture_output=True, check=True) for _ in range(2)]
        found = {int(pid) for run in runs for pid in run.stdout.split()}
        assert found and len(found) <= parallel._size and os.getpid() not in found
    assert all(map(_is_gone, found))


@pytest.mark.parametrize("workers", [1, 2, None])
def test_numerical_libraries_get_one_thread_in_every_process(workers, start):
    if workers is None:
        start()
    assert list(parallel_map(_threads, NUMBERS[:2], workers=workers, isolate=True)) == [({1}, "1", "1")] * 2


@pytest.mark.parametrize("where", ["here", "cluster"])
def test_an_error_keeps_its_kind_and_ends_the_other_tasks(where, start, tmp_path):
    if where == "cluster":
        start()
    with pytest.raises(ConfigError, match=r"^this one failed at once\.$"):
        list(parallel_map(_fails_while_another_runs, [(n, tmp_path) for n in range(2)], workers=2))
    assert _is_gone(int((tmp_path / "pid").read_text()))
    assert pids(NUMBERS[:2], workers=2)


def test_a_caller_that_wants_no_more_results_ends_its_tasks_and_not_those_of_another():
    results, others = (parallel_map(time.sleep, [(0.2,)] * n, workers=2) for n in (100, 6))
    next(results), next(others)
    results.close()
    assert list(others) == [None] * 5
    results = parallel_map(time.sleep, [(0,), *[(600,)] * 20], workers=2)
    next(results)
    running = set(parallel.Processes()._pool(2)._processes)
    results.close()
    assert running and all(map(_is_gone, running))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_is_killed_is_one_error_and_the_next_call_starts_afresh(workers):
    with pytest.raises(WorkerError, match="counting"):
        list(parallel_map(_is_killed, NUMBERS, workers=workers, describe="counting", isolate=True))
    assert pids(NUMBERS, workers=workers, isolate=True)


def test_the_number_of_workers_can_be_set_from_outside(monkeypatch):
    monkeypatch.setenv("INSTRLIB_WORKERS", "3")
    assert n_workers() == 3
    for text in ("many", "²", "-1", "1.5"):
        monkeypatch.setenv("INSTRLIB_WORKERS", text)
        with pytest.raises(ConfigError, match="INSTRLIB_WORKERS"):
            n_workers()
    monkeypatch.delenv("INSTRLIB_WORKERS")
    assert n_workers() >= 1


def test_a_dask_cluster_survives_a_killed_worker_and_a_task_that_kills_all_is_one_sentence(start, tmp_path):
    start()
    found = pids(NUMBERS * 5, workers=1)
    assert len(found) == 2 and os.getpid() not in found
    assert all(pid in found and inner == {pid} for pid, inner in parallel_map(_nested, NUMBERS[:2]))
    assert list(parallel_map(_killed_once, [(n, tmp_path) for n in range(8)])) == list(range(8))
    with pytest.raises(WorkerError, match="counting"):
        list(parallel_map(_is_killed, NUMBERS, describe="counting"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "here", "ftp://127.0.0.1:1", "silent", "without worker"])
def test_a_scheduler_that_is_not_there_or_has_no_worker_is_one_sentence(address, start, monkeypatch):
    monkeypatch.setattr(parallel, "_CONNECT_S", 0.5)
    monkeypatch.setattr(parallel, "_NO_WORKER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # as a dashboard, it waits for a request
        if address == "silent":
            address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        elif address == "without worker":
            address, _ = start(workers=0)
        monkeypatch.setenv("INSTRLIB_SCHEDULER", address)
        with pytest.raises(WorkerError, match=address):
            list(parallel_map(_who, NUMBERS))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_dask_worker_with_several_threads_or_other_code_is_refused(start, monkeypatch, threads):
    start(workers=1, threads=threads)
    if threads == 1:
        monkeypatch.setattr(parallel, "key", lambda layer: "other")
    with pytest.raises(WorkerError, match="nthreads 1"):
        list(parallel_map(_who, NUMBERS))


def test_a_scheduler_that_goes_away_is_one_sentence_and_nothing_is_written_to_stderr(start, tmp_path):
    address, started = start(workers=1)
    code = f"""import pathlib, instrlib.core.parallel, instrlib.core.io, test_parallel
try:
    list(instrlib.core.parallel.parallel_map(test_parallel._long, [(pathlib.Path({str(tmp_path)!r}),)]))
except instrlib.core.io.WorkerError as error:
    print(error)"""
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    run = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=pipe, stderr=pipe, text=True)
    while not (tmp_path / "pid").exists():
        time.sleep(0.05)
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
    out, err = run.communicate(timeout=60)
    assert address in out and err == ""


@pytest.mark.slow
def test_training_gives_the_same_bits_from_one_process_two_and_a_cluster_that_loses_a_worker(small, start, tmp_path):
    variant = train.Variant("small", "small", TrainConfig(epochs=1), small.store.folder)

    def results(name, *, workers=None, marker=None):
        places = [(marker, tmp_path / name / "1"), (None, tmp_path / name / "0")]
        tasks = [(*place, variant, small.split_path, seed) for seed, place in enumerate(places)]
        for run in parallel_map(_trains_and_is_killed_once, tasks, workers=workers, isolate=True):
            yield [*trained.load_model(run)[0].get_weights(), *read_arrays(run / "validation.npz").values()]

    one, two = list(results("one", workers=1)), results("two", workers=2)
    for first, second in zip(one, two, strict=True):
        assert all(map(np.array_equal, first, second))
    start()
    for first, second in zip(one, results("cluster", marker=tmp_path / "killed"), strict=True):
        assert all(map(np.array_equal, first, second))
    assert (tmp_path / "killed").exists()
    assert not np.array_equal(one[0][0], one[1][0]), "seeds differ"
