"""A corpus with several labels a clip, from its layout on disk through the first notebooks to scores beside baselines.

Corpora with one label a clip go the same way in the smoke studies.
"""

import json
import os
import subprocess
import sys

import pytest
from trees import make_openmic2018


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_release_gives_scores_beside_baselines(tmp_path):
    make_openmic2018(tmp_path / "corpus")
    moved = {f"INSTRLIB_{name.upper()}": str(tmp_path / name) for name in ("data", "runs", "reports", "figures")}
    moved["INSTRLIB_WORKERS"] = "1"
    code = (
        "import sys; from instrlib.runner.study import run_study; run_study(corpus='openmic2018', data=sys.argv[1], "
        "profile='smoke', seeds=1, notebooks=('01_preprocessing', '02_baseline_cnn'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "corpus")]
    run = subprocess.run(command, env=os.environ | moved, capture_output=True, text=True, check=False, timeout=800)
    assert run.returncode == 0, run.stderr
    (path,) = (tmp_path / "runs").glob("*/results.json")
    results = json.loads(path.read_text())
    assert set(results["notebooks"]) == {"01_preprocessing", "02_baseline_cnn"}
    (primary,) = [one for one in results["primary"] if one["notebook"] == "02_baseline_cnn"]
    assert primary["score"] == "mean average precision"
    assert primary["low"] <= primary["difference"] <= primary["high"]
    scores = results["notebooks"]["02_baseline_cnn"]["numbers"]["scores"]
    assert {primary["first"], primary["second"]} < set(scores) and len(scores) >= 3
