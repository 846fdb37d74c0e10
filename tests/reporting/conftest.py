"""A published study of nine notebooks, with everything that a notebook can declare."""

import numpy as np
import pytest

from instrlib import charts
from instrlib.core.io import write_json
from instrlib.reporting.numbers import VERDICTS


@pytest.fixture
def results() -> dict:
    """Return the declarations of the study, to be changed."""
    rows, notebooks = [], {}
    for number in range(1, 10):
        name, middle = f"{number:02d}_topic", 0.1 * number
        row = {"notebook": name, "question": f"Question {number}?", "first": f"model {number}", "second": "baseline"}
        row |= {"score": "accuracy", "difference": middle, "low": middle - 0.05, "high": middle + 0.05, "p": 0.01}
        rows.append(row | {"margin": 0.02, "detectable": 0.09, "verdict": VERDICTS[number % 4]})
        notebooks[name] = {
            "title": f"{number:02d} · Topic {number}",
            "question": f"What of {number}?",
            "methods": [f"Method {number} follows [@yun2019]."],
            "findings": [{"text": f"Finding {number} is 0.{number}00.", "key": number in (2, 5), "numbers": {}}],
            "figures": [{"name": f"{number:02d}_scores", "caption": f"Caption {number}.", "key": number == 5}],
            "numbers": {"n_tested": 100 + number, "scores": {"a": {"accuracy": 0.5}, "b": {"accuracy": None}}},
            "manifest": {
                "parameters": {"corpus": "irmas", "data": "", "profile": "quick", "seeds": 3},
                "corpus": {"title": "IRMAS", "licence": "CC BY-NC-SA 3.0", "citation": "Bosch et al., 2012"},
                "inputs": {"features": "feedfacecafebeef"},
                "versions": {"numpy": "2.4.6"},
                "commit": "abc123def456",
            },
        }
    rows[8] |= {"difference": None, "low": None, "high": None, "p": None, "verdict": "inconclusive"}
    notebooks["01_topic"]["facts"] = {"clips": 6705, "groups": 2000}
    notebooks["01_topic"]["cards"] = [
        {"card": "data", "heading": "Classes", "content": {"cello": {"clips": 388, "groups": 120}}},
        {"card": "model", "heading": "Other sounds", "content": "Accuracy falls to 0.4."},
    ]
    return {"study": "irmas-quick", "primary": rows, "notebooks": notebooks}


@pytest.fixture
def published(tmp_path, results):
    """Return the folder of the study in `reports/`, its figures drawn."""
    folder = tmp_path / "reports" / "irmas-quick"
    write_json(folder / "results.json", results)
    figure = charts.dots(names=["a", "b"], values=np.array([0.2, 0.4]))
    for number in range(1, 10):
        charts.save(figure, tmp_path / "figures" / "irmas-quick", f"{number:02d}_scores")
    return folder
