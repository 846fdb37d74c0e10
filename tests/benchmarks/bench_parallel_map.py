"""Seeds trained in two processes by `parallel_map` against one after the other in one.

Every measurement is a fresh Python, so none finds processes or TensorFlow warm; rounds alternate, and the median of
their ratios is printed. Both must give the same networks. Two free cores are needed for the figure to mean anything.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from instrlib.core.config import get_profile
from instrlib.core.io import read_arrays
from instrlib.core.parallel import parallel_map
from instrlib.data import rendered
from instrlib.data.splits import make_split, save_split
from instrlib.data.store import build_store, open_store
from instrlib.models.train import train_model

CLIPS_PER_CLASS = 36
PROFILE = get_profile("quick")
CONFIG = replace(PROFILE.train, patience=PROFILE.train.epochs)
"""As the study trains, but to the end."""

SEEDS = range(4)
ROUNDS = 3
GOAL = 1.5


def prepare(root: Path) -> Path:
    """Make features and a split of the embedded corpus; return the folder of the features."""
    corpus = rendered.load(root / "rendered", clips_per_class=CLIPS_PER_CLASS)
    store = build_store(corpus, PROFILE.features, root=root / "features")
    save_split(make_split(store.clips, seed=0), root / "split.json")
    return store.folder


def train(workers: int, store: Path, split: Path, runs: Path) -> None:
    """Train every seed and print how long it took in s."""
    tasks = [(runs / str(seed), store, split, "compact", CONFIG, seed) for seed in SEEDS]
    start = time.perf_counter()
    for _ in parallel_map(train_model, tasks, workers=workers, isolate=True):
        pass
    print(time.perf_counter() - start)


def measure(workers: int, store: Path, split: Path, runs: Path) -> float:
    """Let a fresh Python train; return how long it took in s."""
    command = [sys.executable, __file__, str(workers), str(store), str(split), str(runs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def answers(runs: Path) -> np.ndarray:
    """Validation probabilities of all seeds."""
    return np.stack([read_arrays(runs / str(seed) / "validation.npz")["probabilities"] for seed in SEEDS])


def main() -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = prepare(root)
        clips = len(open_store(store).clips)
        print(f"compact, {len(SEEDS)} seeds, {CONFIG.epochs} epochs, {clips} clips; load {os.getloadavg()[0]:.1f}")
        took: dict[int, list[float]] = {1: [], 2: []}
        for at in range(ROUNDS):
            for workers in (1, 2):
                took[workers].append(measure(workers, store, root / "split.json", root / f"{at}-{workers}"))
        if not np.array_equal(answers(root / "0-1"), answers(root / "0-2")):
            raise SystemExit("the networks of one and of two processes differ")
    ratio = statistics.median(one / two for one, two in zip(took[1], took[2], strict=True))
    print(f"one after the other {statistics.median(took[1]):6.1f} s")
    print(f"two processes       {statistics.median(took[2]):6.1f} s  {ratio:4.2f} x faster (goal {GOAL})")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(int(sys.argv[1]), *map(Path, sys.argv[2:]))
    else:
        main()
