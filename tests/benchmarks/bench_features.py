"""Feature extraction against a plain loop of librosa on the same files, in the same run.

The loop is what one would write first: `librosa.load`, cut into segments, `melspectrogram`, `power_to_db`. Ours is
timed in one process, and in two through `build_store`, with everything that it writes and checks. Both sides are warm
and have one thread a process; rounds alternate, and the medians of their ratios are printed. The files are the real
clips where INSTRLIB_TEST_DATA names them, else generated ones.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile
from threadpoolctl import threadpool_limits

from instrlib.audio import decode as audio
from instrlib.audio.features import extract, segment_starts
from instrlib.core.config import FeatureConfig
from instrlib.data.dataset import Corpus, CorpusInfo
from instrlib.data.store import build_store

CONFIG = FeatureConfig()
ROUNDS = 7
TOLERANCE_DB = 1e-4
GOALS = {"one process": 1.5, "two processes": 2.5}


def real_clips() -> list[Path]:
    """Paths of the real clips, sorted; empty without them."""
    folder = os.environ.get("INSTRLIB_TEST_DATA")
    return sorted(Path(folder).joinpath("fsdkaggle2018_sample").rglob("*.flac")) if folder else []


def generated_clips(folder: Path, n_clips: int = 200) -> list[Path]:
    """Write clips like those of FSDKaggle2018: 44.1 kHz, 16 bits, flac, 1 to 20 s, decaying tones in noise."""
    rng = np.random.default_rng(0)
    paths = []
    for at, duration_s in enumerate(1 + 19 * rng.beta(1, 3, n_clips)):
        time_s = np.arange(round(duration_s * 44_100)) / 44_100
        partials = sum(np.sin(2 * np.pi * rng.uniform(100, 4_000) * time_s) / k for k in range(1, 6))
        samples = 0.2 * partials * np.exp(-time_s / 2) + rng.normal(0, 1e-3, len(time_s))
        paths.append(folder / f"{at}.flac")
        soundfile.write(paths[-1], samples, 44_100)
    return paths


def corpus_of(paths: list[Path], times: int = 1) -> Corpus:
    """Every clip `times` times."""
    durations_s = [audio.probe(path).duration_s for path in paths]
    manifest = pd.DataFrame(
        {
            "clip_id": [f"{at:06d}" for at in range(times * len(paths))],
            "path": [str(path) for path in paths] * times,
            "start_s": 0.0,
            "duration_s": durations_s * times,
            "label": "sound",
            "group": "one",
            "split": "",
        }
    )
    return Corpus(CorpusInfo("bench", "", "", "", "", "", ""), Path("/"), manifest, ("sound",))


def cut(signal: np.ndarray) -> list[np.ndarray]:
    """The segments of a clip."""
    first = (segment_starts(len(signal) / CONFIG.sample_rate_hz, CONFIG) * CONFIG.sample_rate_hz).round().astype(int)
    return [signal[start : start + CONFIG.segment_samples] for start in first]


def ours(paths: list[Path]) -> list[np.ndarray]:
    """instrlib's features of every segment."""
    return [
        extract(segment, CONFIG)
        for path in paths
        for segment in cut(audio.load(path, sample_rate_hz=CONFIG.sample_rate_hz))
    ]


def plain_loop(paths: list[Path]) -> tuple[list[np.ndarray], list[float]]:
    """librosa's features of every segment, and each segment's largest power."""
    features, largest = [], []
    for path in paths:
        signal, rate_hz = librosa.load(path, sr=CONFIG.sample_rate_hz)
        for segment in cut(signal):
            power = librosa.feature.melspectrogram(
                y=librosa.util.fix_length(segment, size=CONFIG.segment_samples),
                sr=rate_hz,
                n_fft=CONFIG.n_fft,
                hop_length=CONFIG.hop_length,
                n_mels=CONFIG.n_mels,
                fmin=CONFIG.fmin_hz,
                fmax=CONFIG.fmax_hz,
            )
            features.append(librosa.power_to_db(power, ref=np.max, top_db=CONFIG.top_db))
            largest.append(float(power.max()))
    return features, largest


def compare_values(paths: list[Path]) -> None:
    """Print how far ours is from librosa; stop where it is not the same."""
    expected, largest = plain_loop(paths)
    # Below this librosa's least power, 1e-10, reaches into the range of 80 dB and lifts its floor.
    loud = np.array(largest) >= 1e-10 * 10 ** (CONFIG.top_db / 10)
    apart_db = np.array([np.abs(one - other).max() for one, other in zip(ours(paths), expected, strict=True)])
    print(
        f"largest difference: {apart_db[loud].max():.1e} dB in {loud.sum()} segments; {(~loud).sum()} too quiet to tell"
    )
    if apart_db[loud].max() > TOLERANCE_DB:
        raise SystemExit(f"the values differ by more than {TOLERANCE_DB} dB")


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def build(corpus: Corpus, workers: int) -> None:
    """Build a store and throw it away."""
    with tempfile.TemporaryDirectory() as root:
        build_store(corpus, CONFIG, root=Path(root), workers=workers)


def compare_times(paths: list[Path]) -> None:
    """Print times and ratios."""
    corpus = corpus_of(paths)
    build(corpus, 2)  # Starts the worker processes; the other two are warm from the comparison of values.
    rounds = [
        (seconds(lambda: plain_loop(paths)), seconds(lambda: ours(paths)), seconds(lambda: build(corpus, 2)))
        for _ in range(ROUNDS)
    ]
    loop, one, two = map(statistics.median, zip(*rounds, strict=True))
    audio_s = corpus.manifest.duration_s.sum()
    print(f"{'plain loop of librosa':24} {loop:6.2f} s  {audio_s / loop:5.0f} x real time")
    for (name, goal), took, column in zip(GOALS.items(), (one, two), (1, 2), strict=True):
        ratio = statistics.median(times[0] / times[column] for times in rounds)
        speed = f"{took:6.2f} s  {audio_s / took:5.0f} x real time"
        print(f"{'instrlib, ' + name:24} {speed}  {ratio:4.2f} x faster (goal {goal})")


def compare_memory(paths: list[Path]) -> None:
    """Print the largest memory of a process that builds a store of all clips once, and ten times over."""
    for times in (1, 10):
        command = [sys.executable, __file__, str(times), *map(str, paths)]
        peak_mb = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"peak memory, {times * len(paths):5} clips: {peak_mb:4.0f} MB")


def print_peak(times: int, paths: list[Path]) -> None:
    """Build a store in this process and print the most memory that it took, in MB."""
    build(corpus_of(paths, times), 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def main() -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        paths = real_clips() or generated_clips(Path(folder))
        print(f"{len(paths)} {'real' if real_clips() else 'generated'} clips")
        compare_values(paths)
        compare_times(paths)
        compare_memory(paths)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak(int(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
    else:
        main()
