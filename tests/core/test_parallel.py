"""Work fans out over processes or a Dask cluster and comes back in order, the same from everywhere."""

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


def _who(number: int) -> tuple[int, int, str | None]:
    return number, os.getpid(), os.environ.get("TF_NUM_INTRAOP_THREADS")


def _threads(_number: int) -> tuple[set[int], str | None, str | None]:
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    blas = {library["num_threads"] for library in threadpool_info()}
    return blas, os.environ.get("OMP_NUM_THREADS"), os.environ.get("TF_NUM_INTEROP_THREADS")


def _fails(number: int) -> int:
    if number == 2:
        raise ConfigError("number 2 is wrong.")
    return number


def _is_killed(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _killed_once(number: int, folder: Path) -> int:
    with (folder / "begun").open("a") as file:
        file.write(f"{number}\n")
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


def _fans_out_itself(_number: int) -> tuple[int, set[int]]:
    return os.getpid(), {pid for _, pid, _ in parallel_map(_who, [(0,), (1,)])}


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

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, []
        record = folder / "scheduler.json"
        self._run("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(record))
        while not (record.exists() and record.read_text()):
            time.sleep(0.02)
        self.address = json.loads(record.read_text())["address"]

    def add_worker(self, *, threads: int = 1) -> "Cluster":
        self._run("worker", self.address, "--nthreads", str(threads), "--local-directory", str(self._folder))
        return self

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
def start(tmp_path_factory, monkeypatch) -> Iterator[Callable[[], Cluster]]:
    """Return what starts a cluster for `parallel_map`; it ends with the test."""
    clusters = []

    def start_one() -> Cluster:
        clusters.append(Cluster(tmp_path_factory.mktemp("dask")))
        monkeypatch.setenv("INSTRLIB_SCHEDULER", clusters[-1].address)
        return clusters[-1]

    yield start_one
    for cluster in clusters:
        cluster.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert [n for n, *_ in parallel_map(_who, [(n,) for n in range(7)], workers=workers)] == list(range(7))


def test_with_one_worker_all_runs_here_and_with_two_it_runs_elsewhere_with_one_thread_each():
    assert {pid for _, pid, _ in parallel_map(_who, [(0,), (1,)], workers=1)} == {os.getpid()}
    elsewhere = list(parallel_map(_who, [(n,) for n in range(8)], workers=2))
    assert os.getpid() not in {pid for _, pid, _ in elsewhere}
    assert {threads for *_, threads in elsewhere} == {"1"}


def test_an_isolated_function_leaves_this_process_even_with_one_worker():
    results = list(parallel_map(_who, [(0,), (1,)], workers=1, isolate=True))
    assert [(n, threads) for n, _, threads in results] == [(0, "1"), (1, "1")]
    assert os.getpid() not in {pid for _, pid, _ in results}


@pytest.mark.parametrize("workers", [1, 2])
def test_numerical_libraries_get_one_thread_in_every_process_that_is_started(workers):
    assert list(parallel_map(_threads, [(0,), (1,)], workers=workers, isolate=True)) == [({1}, "1", "1")] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_comes_back_as_it_is(workers):
    with pytest.raises(ConfigError, match=r"number 2 is wrong\."):
        list(parallel_map(_fails, [(n,) for n in range(4)], workers=workers))


def test_a_task_that_fails_ends_the_others_at_once(tmp_path):
    with pytest.raises(ConfigError, match="failed at once"):
        list(parallel_map(_fails_while_another_runs, [(n, tmp_path) for n in range(2)], workers=2))
    assert _is_gone(int((tmp_path / "pid").read_text()))
    assert len(list(parallel_map(_who, [(0,), (1,)], workers=2))) == 2, "the next call starts afresh"


def test_a_caller_who_wants_no_more_results_ends_the_tasks(tmp_path):
    results = parallel_map(_killed_once, [(0, tmp_path), (1, tmp_path), *[(2, tmp_path)] * 20], workers=2)
    assert next(results) == 0
    results.close()
    assert list(parallel_map(_fails, [(0,), (1,)], workers=2)) == [0, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_is_killed_is_one_error_and_the_next_call_starts_afresh(workers):
    with pytest.raises(WorkerError, match="counting"):
        list(parallel_map(_is_killed, [(n,) for n in range(4)], workers=workers, describe="counting", isolate=True))
    assert list(parallel_map(_fails, [(0,), (1,)], workers=workers, isolate=True)) == [0, 1]


def test_processes_stay_warm_between_calls_of_any_size_and_after_a_first_result_alone():
    def pids(n: int, workers: int) -> set[int]:
        return {pid for _, pid, _ in parallel_map(_who, [(k,) for k in range(n)], workers=workers, isolate=True)}

    first = pids(8, 2)
    assert pids(1, 1) <= first and pids(8, 2) <= first
    assert next(parallel_map(_who, [(0,)], isolate=True))[1] in first
    assert pids(8, 2) <= first


def test_an_error_leaves_the_tasks_of_another_open_generator_alone():
    other = parallel_map(_who, [(n,) for n in range(6)], workers=2)
    assert next(other)[0] == 0
    with pytest.raises(ConfigError):
        list(parallel_map(_fails, [(n,) for n in range(4)], workers=2))
    assert [n for n, *_ in other] == [1, 2, 3, 4, 5]


KERNEL = """
import sys
from pathlib import Path
from instrlib.core.parallel import parallel_map
import test_parallel
print(*[pid for _, pid, _ in parallel_map(test_parallel._who, [(n,) for n in range(4)], workers=2)])
power = 3
print(*parallel_map(lambda x: x**power, [(1,), (2,)], workers=2))
if len(sys.argv) > 1:
    try:
        list(parallel_map(test_parallel._fails, [(n,) for n in range(4)], workers=2))
    except Exception as error:
        print(type(error).__name__, "_fails" in error.__notes__[0], flush=True)
    list(parallel_map(test_parallel._long, [(Path(sys.argv[1]),)], isolate=True))
"""


def test_kernels_share_warm_processes_and_what_they_leave_running_ends_with_them(tmp_path):
    with parallel.shared_processes() as variables:
        environment = os.environ | variables

        def kernel(*arguments: str) -> subprocess.Popen:
            command = [sys.executable, "-c", KERNEL, *arguments]
            return subprocess.Popen(command, cwd=HERE, env=environment, stdout=subprocess.PIPE, text=True)

        said = [kernel().communicate(timeout=60)[0].splitlines() for _ in range(2)]
        pids = [set(lines[0].split()) for lines in said]
        assert pids[0] & pids[1] and str(os.getpid()) not in pids[0] | pids[1]
        assert [lines[1:] for lines in said] == [["1 8"]] * 2

        killed = kernel(str(tmp_path))
        while not (tmp_path / "pid").exists():
            time.sleep(0.05)
        killed.kill()
        assert _is_gone(int((tmp_path / "pid").read_text()))
        assert killed.communicate()[0].splitlines()[1:] == ["1 8", "ConfigError True"]
        assert kernel().communicate(timeout=60)[0].splitlines()[1:] == ["1 8"]
    assert _is_gone(int(max(pids[1])))


def test_no_tasks_give_no_results(monkeypatch):
    assert list(parallel_map(_who, [])) == []
    monkeypatch.setenv("INSTRLIB_SCHEDULER", "tcp://127.0.0.1:1")
    assert list(parallel_map(_who, [])) == []


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
    start().add_worker().add_worker()
    results = list(parallel_map(_who, [(n,) for n in range(40)], workers=1))
    assert [n for n, *_ in results] == list(range(40))
    pids = {pid for _, pid, _ in results}
    assert len(pids) == 2 and os.getpid() not in pids
    assert list(parallel_map(_threads, [(n,) for n in range(4)])) == [({1}, "1", "1")] * 4
    assert all(pid in pids and inner == {pid} for pid, inner in parallel_map(_fans_out_itself, [(0,), (1,)]))


def test_a_dask_worker_that_is_killed_does_not_lose_the_run(start, tmp_path):
    start().add_worker().add_worker()
    tasks = [(n, tmp_path) for n in range(8)]
    assert list(parallel_map(_killed_once, tasks)) == [n**2 for n in range(8)]
    begun = (tmp_path / "begun").read_text().split()
    assert begun.count("3") == 2 and {*begun} == {str(n) for n in range(8)}


def test_a_task_that_kills_every_dask_worker_is_given_up_in_one_sentence(start):
    start().add_worker().add_worker()
    with pytest.raises(WorkerError, match="ended 4 Dask workers"):
        list(parallel_map(_is_killed, [(n,) for n in range(4)], describe="counting"))


def test_an_error_on_a_dask_worker_comes_back_as_it_is_and_ends_the_others(start, tmp_path):
    start().add_worker().add_worker()
    with pytest.raises(ConfigError, match=r"^this one failed at once\.$"):
        list(parallel_map(_fails_while_another_runs, [(n, tmp_path) for n in range(2)]))
    assert _is_gone(int((tmp_path / "pid").read_text()))
    assert list(parallel_map(_fails, [(0,), (1,)])) == [0, 1]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "here", "ftp://127.0.0.1:1"])
def test_a_scheduler_that_is_not_there_is_one_sentence(address, monkeypatch):
    monkeypatch.setattr(parallel, "_CONNECT_S", 0.5)
    monkeypatch.setenv("INSTRLIB_SCHEDULER", address)
    with pytest.raises(WorkerError, match=address):
        list(parallel_map(_who, [(0,)]))


def test_a_port_that_never_greets_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(parallel, "_CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("INSTRLIB_SCHEDULER", f"tcp://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(WorkerError, match="INSTRLIB_SCHEDULER"):
            list(parallel_map(_who, [(0,)]))


def test_a_cluster_without_workers_is_given_up_after_a_while(start, monkeypatch):
    monkeypatch.setattr(parallel, "_NO_WORKER_S", 1.0)
    cluster = start()
    with pytest.raises(WorkerError, match=f"{cluster.address} .* no worker"):
        list(parallel_map(_who, [(0,)]))


def test_a_dask_worker_with_several_threads_is_refused(start):
    start().add_worker(threads=2)
    with pytest.raises(WorkerError, match="2 threads"):
        list(parallel_map(_who, [(0,)]))


def test_a_dask_worker_of_other_code_is_refused(start, monkeypatch):
    start().add_worker()
    monkeypatch.setattr(parallel, "key", lambda layer: "other")
    with pytest.raises(WorkerError, match="other code"):
        list(parallel_map(_who, [(0,)]))


def test_a_scheduler_that_goes_away_is_one_sentence_and_nothing_is_written_to_stderr(start, tmp_path):
    cluster = start().add_worker()
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
    inputs = small.store.folder, small.split_path

    def train(name: str, *, workers: int | None = None, marker: Path | None = None) -> list[Path]:
        tasks = [
            (marker if seed == 1 else None, tmp_path / name / str(seed), *inputs, "small", TrainConfig(epochs=1), seed)
            for seed in (0, 1)
        ]
        return list(parallel_map(_trains_and_is_killed_once, tasks, workers=workers, isolate=True))

    runs = [train("one", workers=1), train("two", workers=2)]
    start().add_worker().add_worker()
    runs.append(train("cluster", marker=tmp_path / "killed"))
    assert (tmp_path / "killed").exists()
    for by_place in zip(*runs, strict=True):
        first, *others = ((trained.load_model(run)[0].get_weights(), _validation(run)) for run in by_place)
        for weights, validation in others:
            assert all(np.array_equal(a, b) for a, b in zip(first[0], weights, strict=True))
            assert validation == first[1]
    assert _validation(runs[0][0]) != _validation(runs[0][1]), "seeds differ"


def _validation(run: Path) -> dict[str, list]:
    return {name: value.tolist() for name, value in read_arrays(run / "validation.npz").items()}
