"""A run beside the numbers that are committed of the same study."""

import pytest

from instrlib.core.io import write_json
from instrlib.runner.run import open_run


@pytest.fixture
def run(tmp_path):
    """Return a run whose notebook has a record of one number, one that is not finite, and one that became plain."""
    metrics = {"scores": {"accuracy": 0.5, "log_loss": float("nan")}, "leak": 0.25}
    notebooks = {"01_first": {"metrics": metrics}}
    write_json(tmp_path / "reports/rendered-smoke/results.json", {"notebooks": notebooks})
    return open_run("01_first", corpus="rendered", data="", profile="smoke", seeds=1)


def test_a_number_is_compared_with_the_recorded_one(run):
    assert run.near_record(0.54, "scores", "accuracy", tolerance=0.05) == "yes"
    assert run.near_record(0.56, "scores", "accuracy", tolerance=0.05) == "no, 0.560 against 0.500"


@pytest.mark.parametrize(
    "path",
    [("scores", "log_loss"), ("leak", "accuracy"), ("leak", "grouped", "accuracy"), ("scores",), ("none", "accuracy")],
    ids=["not finite", "a plain number now", "two levels below it", "a table", "unknown"],
)
def test_where_no_number_is_recorded_there_is_nothing_to_compare_with(run, path):
    assert run.near_record(0.5, *path, tolerance=0.05) == "nothing is recorded yet"
