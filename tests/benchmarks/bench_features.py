"""Feature extraction against a plain loop of librosa on the same files, in one run; one thread a process.

The loop loads, cuts into segments, and calls `melspectrogram` and `power_to_db`. Ours is timed in one process, and in
two through `build_store`, with all that it writes and checks.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile
from threadpoolctl import threadpool_limits

from instrlib.audio import decode
from instrlib.audio.features import extract, segment_starts
from instrlib.core.config import FeatureConfig
from instrlib.data.corpora import Corpus, CorpusInfo, excluded_table
from instrlib.data.store import build_store

CONFIG = FeatureConfig()
ROUNDS = 5


def clips(folder: Path) -> list[Path]:
    """Return generated clips."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{at}.flac" for at in range(200)]
    for path, duration_s in zip(paths, 1 + 19 * rng.beta(1, 3, 200), strict=True):
        time_s = np.arange(round(duration_s * 44_100)) / 44_100
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * rng.uniform(100, 4_000) * time_s) * np.exp(-time_s), 44_100)
    return paths


def segments(signal: np.ndarray) -> list[np.ndarray]:
    """Cut a clip into segments."""
    starts = (segment_starts(len(signal) / CONFIG.sample_rate_hz, CONFIG) * CONFIG.sample_rate_hz).round().astype(int)
    return [signal[start : start + CONFIG.segment_samples] for start in starts]


def plain_loop(paths: list[Path]) -> None:
    """Compute features with librosa alone."""
    for path in paths:
        signal, rate_hz = librosa.load(path, sr=CONFIG.sample_rate_hz)
        for segment in segments(signal):
            padded = librosa.util.fix_length(segment, size=CONFIG.segment_samples)
            power = librosa.feature.melspectrogram(y=padded, sr=rate_hz, n_mels=CONFIG.n_mels, fmin=CONFIG.fmin_hz)
            librosa.power_to_db(power, ref=np.max)


def one_process(paths: list[Path]) -> None:
    """Compute instrlib's features."""
    for path in paths:
        for segment in segments(decode.load(path, sample_rate_hz=CONFIG.sample_rate_hz)):
            extract(segment, CONFIG)


def two_processes(paths: list[Path]) -> None:
    """Build a store and discard it."""
    table = {"clip_id": [f"{at:06d}" for at in range(len(paths))], "path": [str(path) for path in paths]}
    table |= {"start_s": 0.0, "duration_s": [decode.probe(path).duration_s for path in paths]}
    manifest = pd.DataFrame(table | {"label": "a", "group": "one", "split": ""})
    manifest.loc[0, "label"] = "b"
    corpus = Corpus(CorpusInfo("bench", "", "", "", "", "", ""), Path("/"), manifest, ("a", "b"), excluded_table())
    with tempfile.TemporaryDirectory() as root:
        build_store(corpus, CONFIG, root=Path(root), workers=2)


def seconds(work: Callable[[list[Path]], None], paths: list[Path]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work(paths)
    return time.perf_counter() - start


def main() -> None:
    """Print the median time of each way, and of its ratio to the plain loop in the same round."""
    ways = (plain_loop, one_process, two_processes)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        paths = clips(Path(folder))
        for way in ways:
            way(paths[:8])  # imports, caches, worker processes
        rounds = [[seconds(way, paths) for way in ways] for _ in range(ROUNDS)]
    for number, way in enumerate(ways):
        took = statistics.median(times[number] for times in rounds)
        ratio = statistics.median(times[0] / times[number] for times in rounds)
        print(f"{way.__name__:14} {took:6.2f} s for {len(paths)} clips, {ratio:5.2f} x the speed of librosa's loop")


if __name__ == "__main__":
    main()
