"""Feature extraction against a plain loop of librosa on the same files, in one run; one thread a process.

`build_store` computes in two processes, with all that it writes and checks.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile
from threadpoolctl import threadpool_limits

from instrlib.audio import decode
from instrlib.audio.features import extract, segment_starts
from instrlib.core.config import FeatureConfig
from instrlib.data import corpora
from instrlib.data.store import build_store

CONFIG, N_CLIPS, ROUNDS = FeatureConfig(), 200, 5


def write_clips(folder: Path) -> None:
    """Write decaying tones of 1 to 20 s, as a folder of two classes."""
    rng = np.random.default_rng(0)
    for number, duration_s in enumerate(1 + 19 * rng.beta(1, 3, N_CLIPS)):
        time_s = np.arange(round(duration_s * 44_100)) / 44_100
        path = folder / "ab"[number % 2] / f"{number}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * rng.uniform(100, 4_000) * time_s) * np.exp(-time_s), 44_100)


def segments(signal: np.ndarray) -> list[np.ndarray]:
    """Cut a clip into segments."""
    starts = (segment_starts(len(signal) / CONFIG.sample_rate_hz, CONFIG) * CONFIG.sample_rate_hz).round().astype(int)
    return [signal[start : start + CONFIG.segment_samples] for start in starts]


def librosa_loop(folder: Path) -> None:
    """Compute features with librosa alone."""
    for path in folder.rglob("*.flac"):
        signal, rate_hz = librosa.load(path, sr=CONFIG.sample_rate_hz)
        for segment in segments(signal):
            padded = librosa.util.fix_length(segment, size=CONFIG.segment_samples)
            power = librosa.feature.melspectrogram(y=padded, sr=rate_hz, n_mels=CONFIG.n_mels, fmin=CONFIG.fmin_hz)
            librosa.power_to_db(power, ref=np.max)


def one_process(folder: Path) -> None:
    """Compute features with instrlib."""
    for path in folder.rglob("*.flac"):
        for segment in segments(decode.load(path, sample_rate_hz=CONFIG.sample_rate_hz)):
            extract(segment, CONFIG)


def two_processes(folder: Path) -> None:
    """Build a store and discard it."""
    with tempfile.TemporaryDirectory() as root:
        build_store(corpora.read("folder", folder), CONFIG, root=Path(root), workers=2)


def seconds(work: Callable[[Path], None], folder: Path) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work(folder)
    return time.perf_counter() - start


def main() -> None:
    """Print the median time of each way, and of its ratio to librosa's loop in the same round."""
    ways = (librosa_loop, one_process, two_processes)
    with tempfile.TemporaryDirectory() as place, threadpool_limits(1):
        write_clips(Path(place))
        rounds = [[seconds(way, Path(place)) for way in ways] for _ in range(1 + ROUNDS)][1:]  # the first is to warm up
    for number, way in enumerate(ways):
        took = statistics.median(times[number] for times in rounds)
        ratio = statistics.median(times[0] / times[number] for times in rounds)
        print(f"{way.__name__:14} {took:6.2f} s for {N_CLIPS} clips, {ratio:5.2f} x the speed of librosa's loop")


if __name__ == "__main__":
    main()
