"""Every published figure is drawn from its stored arrays, and no two are the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instrlib import charts
from instrlib.core.io import hash_file, read_arrays, read_json

REPOSITORY = Path(__file__).resolve().parents[2]


def stored(study):
    """Return the arrays of the study's charts; those of a study of an earlier version cannot be drawn any more."""
    paths = sorted((REPOSITORY / "reports" / study / "arrays").glob("*.npz"))
    return [path for path in paths if "chart" in read_arrays(path)]


STUDIES = sorted(path.parent.name for path in (REPOSITORY / "reports").glob("*/results.json"))
CHARTS = [(study, path) for study in STUDIES for path in stored(study)]
ONE_OF_EACH = {str(read_arrays(path)["chart"]): (study, path) for study, path in CHARTS}


@pytest.mark.parametrize("study", sorted({study for study, _ in CHARTS}))
def test_every_declared_figure_has_arrays_and_files_and_differs_from_the_others(study):
    notebooks = read_json(REPOSITORY / "reports" / study / "results.json")["notebooks"].values()
    declared = [one["name"] for entry in notebooks for one in entry.get("figures", [])]
    assert sorted(path.stem for path in stored(study)) == sorted(declared)
    folder = REPOSITORY / "figures" / study
    assert {path.name for path in folder.iterdir()} == {f"{name}{end}" for name in declared for end in (".png", ".svg")}
    assert len({hash_file(folder / f"{name}.png") for name in declared}) == len(declared)
    assert all(one["caption"] for entry in notebooks for one in entry.get("figures", []))


@pytest.mark.parametrize("chart", ONE_OF_EACH)
def test_a_published_figure_of_each_chart_is_drawn_again(chart, tmp_path):
    """Other versions of fonts and libraries may move edges by some grey; the picture stays."""
    study, path = ONE_OF_EACH[chart]
    png, _ = charts.save(charts.draw_stored(path), tmp_path, path.stem)
    with Image.open(png) as new, Image.open(REPOSITORY / "figures" / study / png.name) as old:
        assert np.abs(np.subtract(new.size, old.size)).max() <= 4
        pixels = [np.asarray(one.convert("L").resize(old.size), dtype=float) for one in (new, old)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 8
