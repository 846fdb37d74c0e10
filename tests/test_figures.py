"""The committed figures can be drawn again from the committed arrays alone: to the byte, and without TensorFlow."""

import inspect
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from committed import REPOSITORY, one_of_each, studies
from PIL import Image

from instrlib import plots
from instrlib.core.cache import versions
from instrlib.core.io import read_arrays, read_json
from instrlib.runner.publish import drawing_versions

DECIDED_BY = ("python", "numpy")
"""Besides `drawing_versions`: what decides the bytes of a figure."""

pytestmark = pytest.mark.parametrize("study", studies())

REDRAW = """
import json, sys
from instrlib.runner.publish import redraw
redraw(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""


def arrays_folder(study):
    return REPOSITORY / "reports" / study / "arrays"


def same_versions(study, stem):
    """Tell whether a figure was drawn with what is installed here."""
    entries = read_json(REPOSITORY / "reports" / study / "results.json")["notebooks"]
    (recorded,) = [entry["manifest"]["versions"] for name, entry in entries.items() if name[:2] == stem[:2]]
    here = drawing_versions() | {name: versions()[name] for name in DECIDED_BY}
    return all(recorded.get(name) == version for name, version in here.items())


def test_every_figure_has_its_arrays_and_every_array_its_figures(study):
    figures = {path.name for path in (REPOSITORY / "figures" / study).iterdir()}
    stems = [path.stem for path in arrays_folder(study).iterdir()]
    assert len(stems) > 20
    assert {path.suffix for path in arrays_folder(study).iterdir()} == {".npz"}
    assert figures == {f"{stem}{ending}" for stem in stems for ending in (".png", ".svg")}


def test_every_array_is_of_a_notebook_with_results_and_holds_what_its_figure_takes(study):
    numbers = {name[:2] for name in read_json(REPOSITORY / "reports" / study / "results.json")["notebooks"]}
    for path in arrays_folder(study).iterdir():
        held = read_arrays(path)
        inspect.signature(plots.FIGURES[str(held.pop("figure"))]).bind(**held)
        assert path.name[:2] in numbers


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory):
    """Return by study where its figures were drawn again, one of each kind, and what that imported."""
    done = {}

    def redraw(study):
        if study not in done:
            root = tmp_path_factory.mktemp(study)
            kept = root / "reports" / study / "arrays"
            kept.mkdir(parents=True)
            for path in one_of_each(arrays_folder(study)):
                shutil.copyfile(path, kept / path.name)
            # One process draws, so that it can tell what it imported.
            moved = {f"INSTRLIB_{name.upper()}": str(root / name) for name in ("reports", "figures")}
            told = os.environ | moved | {"INSTRLIB_WORKERS": "1"}
            command = [sys.executable, "-c", REDRAW, study]
            run = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
            done[study] = root / "figures" / study, json.loads(run.stdout)
        return done[study]

    return redraw


def test_a_figure_of_each_kind_is_the_same_to_the_byte_on_the_same_versions(study, redrawn):
    """Where other versions are installed, letters and edges may differ by some grey; the picture may not."""
    folder, _ = redrawn(study)
    assert {path.stem for path in folder.iterdir()} == {path.stem for path in one_of_each(arrays_folder(study))}
    for path in folder.iterdir():
        committed = REPOSITORY / "figures" / study / path.name
        if same_versions(study, path.stem):
            assert path.read_bytes() == committed.read_bytes(), path.name
        elif path.suffix == ".png":
            with Image.open(path) as new, Image.open(committed) as old:
                sizes = np.array([new.size, old.size])
                assert np.abs(sizes[0] - sizes[1]).max() <= 4, path.name
                pixels = [np.asarray(one.convert("L").resize(old.size), dtype=float) for one in (new, old)]
            assert np.abs(pixels[0] - pixels[1]).mean() < 8, path.name


def test_nothing_that_trains_or_listens_is_imported_to_draw(study, redrawn):
    _, imported = redrawn(study)
    assert "matplotlib" in imported
    assert not {"tensorflow", "keras", "tf_keras", "librosa", "sklearn", "soundfile", "gradio"} & set(imported)
