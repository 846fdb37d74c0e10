"""What a notebook declares reaches its run's folder; the manifest is written last."""

import numpy as np
import pandas as pd
import pytest

from instrlib import charts
from instrlib.core.io import RunError, read_json, write_json
from instrlib.runner.run import DECLARED, open_run
from instrlib.runner.study import collect

ROW = {"difference": -0.018, "low": -0.096, "high": 0.051, "p": 0.6, "margin": 0.02, "detectable": 0.09}
ROW |= {"verdict": "inconclusive"}


@pytest.fixture
def run():
    return open_run("01_first", corpus="rendered", data="", profile="smoke", seeds=1)


def primary(run, **changed):
    names = {"question": "Does it help?", "first": "CutMix", "second": "none", "score": "accuracy"}
    return run.primary(**names, comparison=pd.Series(ROW | changed))


def test_declarations_reach_results_json(run, tmp_path):
    run.facts(clips=np.int64(600))
    run.figure("scores", charts.dots, caption="Scores.", key=True, names=pd.Series(["a", "b"]), values=[0.1, 0.2])
    said = primary(run).data
    run.finding("Accuracy is {accuracy:.2f}.", accuracy=np.float32(0.25), key=True)
    run.method("As in [@yun2019].")
    run.numbers(table=pd.DataFrame({"x": [1.0]}, index=pd.MultiIndex.from_tuples([("a", "b")])), array=np.arange(2))
    run.models(pd.DataFrame({"estimate": [0.5]}, index=["m"]), score="accuracy", clips=["b", "a"])
    run.card("data", "Classes", pd.DataFrame({"clips": [5]}, index=["cello"]))
    assert run.findings().data == f"- {said}\n- Accuracy is 0.25."
    assert not (run.folder / "manifest.json").exists()
    assert "manifest.json" in run.finish(features="feed")
    collect(run.folder.parent, [run.folder])
    results = read_json(tmp_path / "runs/rendered-smoke/results.json")
    assert results["primary"] == [
        {"notebook": "01_first", "question": "Does it help?", "first": "CutMix", "second": "none", "score": "accuracy"}
        | ROW
    ]
    entry = results["notebooks"]["01_first"]
    assert entry["figures"] == [{"name": "01_scores", "caption": "Scores.", "key": True}]
    assert entry["findings"] == [{"text": "Accuracy is 0.25.", "key": True, "numbers": {"accuracy": 0.25}}]
    assert entry["numbers"] == {"table": {"a / b": {"x": 1.0}}, "array": [0, 1]}
    assert entry["models"]["rows"] == {"m": {"estimate": 0.5}} and entry["facts"] == {"clips": 600}
    assert entry["cards"][0]["content"] == {"cello": {"clips": 5}}
    assert entry["manifest"]["corpus"]["title"]
    assert (tmp_path / "runs/rendered-smoke/figures/01_scores.png").is_file()
    assert (tmp_path / "runs/rendered-smoke/arrays/01_scores.npz").is_file()


def test_declaring_again_replaces(run):
    for verdict in ("better", "worse"):
        primary(run, verdict=verdict)
    for _ in range(2):
        run.finding("One.")
        run.figure("a", charts.dots, caption="A.", names=["a"], values=[0.1])
    known = read_json(run.folder / DECLARED)
    assert [one["verdict"] for one in known["primary"]] == ["worse"]
    assert len(known["findings"]) == len(known["figures"]) == 1


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), None])
def test_a_number_that_is_not_finite_is_a_dash(run, value):
    assert run.finding("A loss of {loss:.2f}.", loss=value).data == "A loss of –."
    assert read_json(run.folder / DECLARED)["findings"][0]["numbers"] == {"loss": None}


def test_opening_a_run_discards_nothing_and_the_first_declaration_what_was_there(run):
    run.figure("old", charts.dots, caption="A.", names=["a"], values=[0.1])
    run.finish()
    again = open_run("01_first", **run.parameters)
    assert (run.folder / "manifest.json").is_file() and (run.folder / "arrays/01_old.npz").is_file()
    again.numbers(x=1)
    assert not (run.folder / "manifest.json").exists() and not list((run.folder / "figures").iterdir())


def test_one_notebook_reads_the_declarations_of_the_finished_others(run):
    run.numbers(x=1)
    report = open_run("14_report", **run.parameters)
    assert report.declarations() == {}
    run.finish()
    found = report.declarations()
    assert found["01_first"]["numbers"] == {"x": 1} and found["01_first"]["manifest"]["notebook"] == "01_first"
    assert report.used == {"01_first"}
    with pytest.raises(RunError, match="02_none"):
        report.other("02_none")


def test_a_number_is_compared_with_the_recorded_one(run, tmp_path):
    entry = {"numbers": {"scores": {"accuracy": 0.5}, "leak": 0.25, "loss": None}}
    write_json(tmp_path / "reports/rendered-smoke/results.json", {"notebooks": {"01_first": entry}})
    assert run.near_record(0.54, "scores", "accuracy", tolerance=0.05) == "yes"
    assert run.near_record(0.31, "leak", tolerance=0.05).startswith("no, 0.310")
    for path in (("loss",), ("leak", "x"), ("scores",), ("none",)):
        assert run.near_record(0.5, *path, tolerance=0.05) == "nothing is recorded yet"
