"""What is committed of the studies, and not a study of one's own that lies beside it."""

import json
import subprocess
from pathlib import Path
from typing import Any

from instrlib.core.io import read_arrays

REPOSITORY = Path(__file__).resolve().parent.parent


def _git(*arguments: str) -> str:
    """Return what git says; "" outside a clone."""
    run = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return "" if run.returncode else run.stdout


def studies() -> list[str]:
    """Name the studies whose results are committed; outside a clone, all that are there."""
    paths = _git("ls-files", "reports/*/results.json").split() or sorted(REPOSITORY.glob("reports/*/results.json"))
    return [Path(path).parent.name for path in paths]


def results(study: str) -> list[dict[str, Any]]:
    """Return a study's results by notebook: as they lie there, and as they are committed.

    The two differ where somebody has made the study again: the README and the notebooks are then still those of the
    committed one.
    """
    path = f"reports/{study}/results.json"
    texts = [(REPOSITORY / path).read_text(encoding="utf-8"), _git("show", f"HEAD:{path}")]
    return [json.loads(text)["notebooks"] for text in texts if text]


def one_of_each(arrays: Path) -> list[Path]:
    """Return one of the arrays in a folder for each function that draws them: drawing all takes half a minute."""
    return list({str(read_arrays(path)["figure"]): path for path in sorted(arrays.iterdir())}.values())
