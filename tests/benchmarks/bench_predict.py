"""`instrlib predict` with the published model: processor time for three minutes, memory for two hours.

Measured are whole commands in fresh processes on one core; most of the time for three seconds is imports.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

GOAL_S, GOAL_MB, ROUNDS, RATE_HZ = 2.0, 20.0, 3, 44_100
MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "instrlib.runner.cli", "predict", sys.argv[1]], check=True, capture_output=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


def measured(folder: Path, ending: str, duration_s: int) -> tuple[float, float]:
    """Write decaying notes; return processor time (s) and peak memory (MB) of the command on them."""
    rng, time_s, path = np.random.default_rng(0), np.arange(RATE_HZ) / RATE_HZ, folder / f"{duration_s}{ending}"
    if not path.exists():
        with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
            for _ in range(duration_s):
                note_hz = 110 * 2 ** (rng.integers(0, 36) / 12)
                sound = sum(np.sin(2 * np.pi * note_hz * partial * time_s) / partial for partial in range(1, 6))
                file.write(0.2 * sound * np.exp(-3 * time_s))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-c", MEASURE, str(path)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | threads)
    spent_s, peak_mb = map(float, run.stdout.split())
    return spent_s, peak_mb


def main() -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as place:
        for duration_s, ending in ((3, ".wav"), *((180, ending) for ending in (".wav", ".flac", ".ogg", ".mp3"))):
            spent_s = min(measured(Path(place), ending, duration_s)[0] for _ in range(ROUNDS))
            print(f"{duration_s:4} s, {ending:5} {spent_s:5.2f} s of processor time (goal for 180 s: {GOAL_S:g})")
        first, last = (measured(Path(place), ".flac", duration_s)[1] for duration_s in (180, 7200))
        print(f"peak memory: {first:.0f} MB for 3 minutes, {last:.0f} MB for 2 hours (goal: at most {GOAL_MB:g} more)")


if __name__ == "__main__":
    main()
