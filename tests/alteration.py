"""What the tests of the guards share: notebooks as if they were committed, nbval over them, results that are others."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np

from instrlib.core.io import read_arrays, read_json, write_arrays, write_json

CHECKED = "nbval-check-output"


def checked_cells(path: Path) -> list[int]:
    """Return the places of a notebook's checked cells among its code cells, as nbval counts them."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [number for number, cell in enumerate(code) if CHECKED in cell.metadata.get("tags", [])]


def as_committed(executed: Path, folder: Path) -> Path:
    """Copy an executed notebook as it stands when it is executed once more, after its numbers were published.

    The first time there is nothing to compare them with. That they are then near the record is not taken for granted:
    nbval compares what this writes with what the notebook says.
    """
    raw = json.loads(executed.read_text(encoding="utf-8"))
    for cell in raw["cells"]:
        if CHECKED in cell["metadata"].get("tags", []):
            for output in cell["outputs"]:
                output["text"] = "".join(output["text"]).replace("nothing is recorded yet", "yes")
    copy = folder / executed.name
    copy.write_text(json.dumps(raw), encoding="utf-8")
    return copy


def differing_cells(paths: Sequence[Path], environment: Mapping[str, str]) -> dict[str, list[int]]:
    """Let nbval execute notebooks, as `make test` does, and return by notebook the cells whose output differs.

    A cell that fails in another way, by an exception or the time limit, is an error here: it would say nothing of what
    the cell checks.
    """
    told = paths[0].with_name("nbval.xml")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--nbval-lax"]
    command += ["--nbval-cell-timeout=600", f"--junitxml={told}", *map(str, paths)]
    run = subprocess.run(command, cwd=told.parent, env=environment, capture_output=True, text=True, check=False)
    cases = list(ElementTree.parse(told).iter("testcase"))
    assert len(cases) > 10 * len(paths), run.stdout + run.stderr
    found: dict[str, list[int]] = {path.stem: [] for path in paths}
    for case in cases:
        for failure in [*case.findall("failure"), *case.findall("error")]:
            said = f"{failure.get('message')}{failure.text}"
            assert "Cell outputs differ" in said, said
            notebook = case.attrib["classname"].rpartition("/")[2].removesuffix(".ipynb")
            found[notebook].append(int(case.attrib["name"].removeprefix("Cell ")))
    return found


def answer_all_rightly(folder: Path) -> None:
    """Alter the kept answers of a trained network to the test part: each is right."""
    path = folder / "predictions.npz"
    kept = read_arrays(path)
    sure = np.eye(kept["probabilities"].shape[-1], dtype=kept["probabilities"].dtype)
    write_arrays(path, **kept | {"probabilities": sure[kept["targets"]]})


def exchange_network(folder: Path, other: Path) -> None:
    """Put the weights of another network of the same form where those of a trained network are kept."""
    shutil.copyfile(other / "model.keras", folder / "model.keras")


def alter_sizes(folder: Path) -> None:
    """Give every network that is kept under a folder one parameter more."""
    for path in folder.glob("*/*/*/metrics.json"):
        kept = read_json(path)
        write_json(path, kept | {"parameters": kept["parameters"] + 1})


def alter_files(folder: Path) -> None:
    """Say of all converted networks that are kept under a folder that their files cannot be compressed."""
    for path in folder.glob("*/*/*/manifest.json"):
        kept = read_json(path)
        sizes = {kind: size | {"compressed_bytes": size["bytes"]} for kind, size in kept["sizes"].items()}
        write_json(path, kept | {"sizes": sizes})


def alter_record(results: Path, notebook: str, *path: str) -> None:
    """Alter a number that was published: by half a point, which no tolerance allows."""
    whole = read_json(results)
    *way, last = path
    place = whole["notebooks"][notebook]["metrics"]
    for key in way:
        place = place[key]
    place[last] += 0.5
    write_json(results, whole)
