"""`instrlib predict` with the published model: processor time for three minutes, memory for two hours.

The time is that of the whole command in a fresh process on one core; the time for three seconds, most of it imports,
stands beside it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from instrlib.models.published import open_model

GOAL_S, GOAL_MB, ROUNDS, RATE_HZ = 2.0, 20.0, 3, 44_100
COMMAND = [sys.executable, "-m", "instrlib.runner.cli", "predict"]
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


def write_music(path: Path, duration_s: int, n_channels: int = 2) -> Path:
    """Write notes of five decaying partials with a little noise, second by second."""
    rng, time_s = np.random.default_rng(0), np.arange(RATE_HZ) / RATE_HZ
    with soundfile.SoundFile(path, "w", RATE_HZ, n_channels) as file:
        for _ in range(duration_s):
            note_hz = 110 * 2 ** (rng.integers(0, 36) / 12)
            sound = sum(np.sin(2 * np.pi * note_hz * partial * time_s) / partial for partial in range(1, 6))
            noise = 0.002 * rng.standard_normal((RATE_HZ, n_channels))
            file.write((0.2 * sound * np.exp(-3 * time_s))[:, None] + noise)
    return path


def measured(path: Path) -> tuple[float, float]:
    """Return processor time (s) and peak memory (MB) of the command."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-c", MEASURE, *COMMAND, str(path)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | threads)
    time_s, peak_mb = map(float, run.stdout.split())
    return time_s, peak_mb


def main() -> None:
    """Print everything."""
    print(f"instrlib predict with {open_model().name}")
    with tempfile.TemporaryDirectory() as folder:
        for name, duration_s in (("short.wav", 3), *((f"three.{kind}", 180) for kind in ("wav", "flac", "ogg", "mp3"))):
            path = write_music(Path(folder) / name, duration_s)
            time_s = min(measured(path)[0] for _ in range(ROUNDS))
            print(f"{duration_s:4} s, {path.suffix:5} {time_s:5.2f} s of processor time (goal for 180 s: {GOAL_S:g})")
        first, last = (measured(write_music(Path(folder) / f"{n}.flac", n, 1))[1] for n in (180, 7200))
        print(f"peak memory: {first:.0f} MB for 3 minutes, {last:.0f} MB for 2 hours (goal: at most {GOAL_MB:g} more)")


if __name__ == "__main__":
    main()
