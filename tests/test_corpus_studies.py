"""Every corpus goes through the first notebooks: from its own layout on disk to networks, scores and figures."""

import json
import os
import subprocess
import sys

import pytest
from trees import make_folders, make_irmas, make_kaggle_instruments, make_nsynth, make_openmic2018

FIRST = ("01_preprocessing", "02_baseline_cnn")

SEVERAL = "openmic2018"
"""The corpus of several instruments a clip, which augmentation and overview treat in a way of their own."""

MAKERS = {
    "irmas": make_irmas,
    "openmic2018": make_openmic2018,
    "nsynth": make_nsynth,
    "kaggle_instruments": make_kaggle_instruments,
    "folder": make_folders,
}
"""`rendered` and the real sample of `fsdkaggle2018` go the same way in test_smoke_study.py."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("corpus", MAKERS)
def test_a_tree_of_its_own_layout_gives_scores_beside_trivial_baselines(corpus, tmp_path):
    MAKERS[corpus](tmp_path / "corpus")
    moved = {f"INSTRLIB_{name.upper()}": str(tmp_path / name) for name in ("data", "runs", "reports", "figures")}
    moved["INSTRLIB_WORKERS"] = "1"  # other tests have the second core
    notebooks = (*FIRST, "03_cutmix", "14_report") if corpus == SEVERAL else FIRST
    code = (
        "import sys; from instrlib.runner.study import run_study; "
        f"run_study(corpus=sys.argv[1], data=sys.argv[2], profile='smoke', seeds=1, notebooks={notebooks})"
    )
    command = [sys.executable, "-c", code, corpus, str(tmp_path / "corpus")]
    run = subprocess.run(command, env=os.environ | moved, capture_output=True, text=True, check=False, timeout=800)
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "reports" / f"{corpus}-smoke" / "results.json").read_text())["notebooks"]
    assert tuple(results) == notebooks
    trivial, main = (
        ({"all present", "none present", "prior"}, "mean_average_precision")
        if corpus == SEVERAL
        else ({"majority class", "stratified random", "nearest centroid"}, "accuracy")
    )
    for name in set(notebooks) - {"01_preprocessing", "14_report"}:
        scores = results[name]["metrics"]["scores"]
        assert trivial < set(scores)
        for by_score in scores.values():
            assert by_score[main]["low"] <= by_score[main]["estimate"] <= by_score[main]["high"]
    assert results["01_preprocessing"]["metrics"]["n_unusable"] == 0
