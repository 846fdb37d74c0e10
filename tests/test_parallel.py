"""Work fans out over processes and comes back in order."""

import os

import pytest

from instrlib.errors import ConfigError
from instrlib.parallel import fan_out, n_workers


def _who(number: int) -> tuple[int, int, str | None]:
    return number, os.getpid(), os.environ.get("TF_NUM_INTRAOP_THREADS")


def _threads(_number: int) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"))


def _fails(number: int) -> int:
    if number == 2:
        raise ConfigError("number 2 is wrong.")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert [n for n, *_ in fan_out(_who, [(n,) for n in range(7)], workers=workers)] == list(range(7))


def test_with_one_worker_all_runs_here_and_with_two_it_runs_elsewhere_with_one_thread_each():
    assert {pid for _, pid, _ in fan_out(_who, [(0,), (1,)], workers=1)} == {os.getpid()}
    elsewhere = list(fan_out(_who, [(n,) for n in range(8)], workers=2))
    assert os.getpid() not in {pid for _, pid, _ in elsewhere}
    assert {threads for *_, threads in elsewhere} == {"1"}


def test_an_isolated_function_leaves_this_process_even_with_one_worker():
    results = list(fan_out(_who, [(0,), (1,)], workers=1, isolate=True))
    assert [(n, threads) for n, _, threads in results] == [(0, "1"), (1, "1")]
    assert os.getpid() not in {pid for _, pid, _ in results}


@pytest.mark.parametrize("workers", [1, 2])
def test_numerical_libraries_get_one_thread_in_every_process_that_is_started(workers):
    assert set(fan_out(_threads, [(0,), (1,)], workers=workers, isolate=True)) == {("1", "1")}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_comes_back_as_it_is(workers):
    with pytest.raises(ConfigError, match=r"number 2 is wrong\."):
        list(fan_out(_fails, [(n,) for n in range(4)], workers=workers))


def test_no_tasks_give_no_results():
    assert list(fan_out(_who, [])) == []


def test_the_number_of_workers_can_be_set_from_outside(monkeypatch):
    monkeypatch.setenv("INSTRLIB_WORKERS", "3")
    assert n_workers() == 3
    assert n_workers(5) == 5
    monkeypatch.setenv("INSTRLIB_WORKERS", "many")
    with pytest.raises(ConfigError, match="INSTRLIB_WORKERS must be a whole number, not 'many'"):
        n_workers()
    monkeypatch.delenv("INSTRLIB_WORKERS")
    assert n_workers() >= 1
