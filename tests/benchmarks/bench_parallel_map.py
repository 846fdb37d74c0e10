"""Seeds trained in two processes by `parallel_map` against one; two free cores are needed.

Every measurement is a fresh Python, so none finds processes or TensorFlow warm. Both must give the same networks.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from instrlib.core.config import get_profile
from instrlib.core.io import read_arrays
from instrlib.core.parallel import parallel_map
from instrlib.data import rendered
from instrlib.data.splits import make_split, save_split
from instrlib.data.store import build_store
from instrlib.models.train import train_model

PROFILE, SEEDS, ROUNDS, GOAL = get_profile("quick"), range(4), 3, 1.5


def measure(workers: int, root: Path, runs: Path) -> float:
    """Let a fresh Python train; return how long it took in s."""
    command = [sys.executable, __file__, str(workers), str(root), str(runs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def train(workers: str, root: str, runs: str) -> None:
    """Train every seed and print how long it took in s."""
    (store,) = Path(root, "features").glob("*-*")
    tasks = [(Path(runs, str(seed)), store, Path(root, "split.json"), "compact", PROFILE.train, seed) for seed in SEEDS]
    start = time.perf_counter()
    list(parallel_map(train_model, tasks, workers=int(workers), isolate=True))
    print(time.perf_counter() - start)


def main() -> None:
    """Print the median times and the median of their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        corpus = rendered.load(root / "rendered", clips_per_class=36)
        save_split(
            make_split(build_store(corpus, PROFILE.features, root=root / "features").clips, seed=0), root / "split.json"
        )
        took = [[measure(workers, root, root / f"{at}-{workers}") for workers in (1, 2)] for at in range(ROUNDS)]
        for seed in SEEDS:
            one, two = (read_arrays(root / f"0-{n}" / str(seed) / "validation.npz")["probabilities"] for n in (1, 2))
            np.testing.assert_array_equal(one, two)
    one_s, two_s = map(statistics.median, zip(*took, strict=True))
    ratio = statistics.median(one / two for one, two in took)
    print(f"{len(SEEDS)} seeds: {one_s:.1f} s in one process, {two_s:.1f} s in two, {ratio:.2f} x faster (goal {GOAL})")


if __name__ == "__main__":
    train(*sys.argv[1:]) if len(sys.argv) > 1 else main()
