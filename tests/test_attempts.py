"""Work that may fail or die is noted, the rest goes on, and what has ended is not done again."""

import os
import signal
import time
from pathlib import Path

import pytest

from instrlib.core.errors import ConfigError, DiskError, WorkerError
from instrlib.core.io import read_json
from instrlib.models.attempts import Attempt, attempt_all


def _work(number: int, log: Path) -> dict[str, int]:
    """Do as the number says, and leave a line in a log."""
    with log.open("a") as file:
        file.write(f"{number}\n")
    if number == 101:
        os._exit(3)
    if number == 102:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 103:
        raise ConfigError("Row 2 does not fit.\nNothing is left to pool.")
    if number == 104:
        raise MemoryError
    if number == 105:
        raise DiskError("Cannot write: the disk is full.")
    time.sleep(0.05)
    return {"square": number**2}


def _dies_in_company_only(number: int, log: Path, alone: Path) -> dict[str, int]:
    if number == 101 and not alone.exists():
        alone.touch()
        os._exit(3)
    return _work(number - 100, log)


def attempt(tmp_path: Path, numbers: list[int], *, workers: int = 2, keys: str = "k", function=_work) -> list[Attempt]:
    log = tmp_path / "log"
    more = () if function is _work else (tmp_path / "alone",)
    return attempt_all(
        function,
        [(number, log, *more) for number in numbers],
        notes=[tmp_path / "notes" / f"{number}.json" for number in numbers],
        keys=[f"{keys}{number}" for number in numbers],
        workers=workers,
    )


def runs(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "log").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("killer", [101, 102])
def test_a_task_that_takes_its_process_down_is_found_and_all_others_are_done(tmp_path, killer, workers):
    ended = attempt(tmp_path, [1, 2, killer, 4, 5], workers=workers)
    assert [one.status for one in ended] == ["done", "done", "died", "done", "done"]
    assert [one.result for one in ended if one.result] == [{"square": n**2} for n in (1, 2, 4, 5)]
    assert ended[2].reason == "its process ended without a word, twice (out of memory, or killed)."
    assert runs(tmp_path).count(killer) == 2
    assert not list((tmp_path / "notes").glob("*.begun"))


def test_two_killers_are_told_apart_from_those_beside_them(tmp_path):
    ended = attempt(tmp_path, [101, 1, 102, 2, 3])
    assert [one.status for one in ended] == ["died", "done", "died", "done", "done"]


def test_a_task_whose_process_died_by_bad_luck_gets_its_result_the_second_time(tmp_path):
    ended = attempt(tmp_path, [101, 106], function=_dies_in_company_only)
    assert [one.status for one in ended] == ["done", "done"]
    assert [one.result["square"] for one in ended] == [1, 36]


def test_a_task_that_raises_is_noted_with_its_reason_in_one_line(tmp_path):
    ended = attempt(tmp_path, [1, 103, 104])
    assert [one.status for one in ended] == ["done", "failed", "failed"]
    assert ended[1].reason == "Row 2 does not fit. Nothing is left to pool."
    assert ended[2].reason == "MemoryError"
    assert runs(tmp_path).count(103) == 1


def test_a_full_disk_is_no_fault_of_the_task_and_ends_the_work(tmp_path):
    with pytest.raises(DiskError, match="the disk is full"):
        attempt(tmp_path, [1, 105, 2], workers=1)
    assert not (tmp_path / "notes" / "105.json").exists()


def test_what_has_ended_is_not_run_again_whether_well_or_badly(tmp_path):
    first = attempt(tmp_path, [1, 103, 101, 2])
    before = runs(tmp_path)
    assert attempt(tmp_path, [1, 103, 101, 2]) == first
    assert runs(tmp_path) == before
    assert attempt(tmp_path, [1, 103, 101, 2, 3])[-1].result == {"square": 9}
    assert runs(tmp_path) == [*before, 3]


def test_another_key_runs_it_again(tmp_path):
    attempt(tmp_path, [1, 2], workers=1)
    attempt(tmp_path, [1, 2], workers=1, keys="other")
    assert runs(tmp_path) == [1, 2, 1, 2]
    assert read_json(tmp_path / "notes" / "1.json")["key"] == "other1"


def test_a_note_of_another_program_is_taken_for_none(tmp_path):
    (tmp_path / "notes").mkdir()
    for number, text in enumerate(['{"key": "k0"}', '{"key": "k1", "status": "done"}', "[[1]]", "7"]):
        (tmp_path / "notes" / f"{number}.json").write_text(text)
    assert [one.result["square"] for one in attempt(tmp_path, [0, 1, 2, 3], workers=1)] == [0, 1, 4, 9]


def test_processes_that_die_before_a_task_begins_are_no_fault_of_a_task(tmp_path, monkeypatch):
    def broken(*_args: object, **_kwargs: object) -> None:
        raise WorkerError("The cluster cannot be used.")

    monkeypatch.setattr("instrlib.models.attempts.parallel_map", broken)
    with pytest.raises(WorkerError, match="cannot be used"):
        attempt(tmp_path, [1, 2])
    assert not (tmp_path / "notes").exists()
