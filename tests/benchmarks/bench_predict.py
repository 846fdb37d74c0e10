"""`instrlib predict`: process time for a recording of three minutes, and memory for one of two hours.

The model is the one published last. The time is that of the whole command in a fresh process, Python's start included,
on one core; beside it stands what the same command takes for a recording of three seconds, most of which is imports.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from instrlib.models.published import open_model

GOAL_S, GOAL_MB = 2.0, 20.0
ROUNDS = 3
RATE_HZ = 44_100
COMMAND = [sys.executable, "-m", "instrlib.runner.cli", "predict"]


def music(duration_s: float, rate_hz: int, n_channels: int) -> np.ndarray:
    """Notes of five partials with decays of their own, a little noise; different in each channel."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    envelope = np.exp(-3 * (time_s % 0.5))
    note_hz = (110 * 2 ** (rng.integers(0, 36, int(duration_s / 0.5) + 1) / 12))[(time_s / 0.5).astype(int)]
    phase = 2 * np.pi * np.cumsum(note_hz) / rate_hz
    sound = sum(np.sin(partial * phase) / partial for partial in range(1, 6)) * envelope * 0.2
    channels = [sound + 0.002 * rng.standard_normal(len(sound)) for _ in range(n_channels)]
    return np.stack(channels, axis=1).astype(np.float32)


def write(path: Path, sound: np.ndarray) -> None:
    """Write a file second by second: libsndfile's Vorbis encoder crashes when it is given minutes at once."""
    with soundfile.SoundFile(path, "w", RATE_HZ, sound.shape[1]) as file:
        for first in range(0, len(sound), RATE_HZ):
            file.write(sound[first : first + RATE_HZ])


def process_time_s(path: Path) -> float:
    """User and system time of the command, in one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, str(path)], check=True, capture_output=True, env=os.environ | threads)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_mb(path: Path) -> float:
    """Peak of resident memory of the command; in a process of its own, whose only child it is."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10))"
    )
    run = subprocess.run([sys.executable, "-c", code, *COMMAND, str(path)], check=True, capture_output=True, text=True)
    return float(run.stdout)


def main() -> None:
    """Print everything."""
    print(f"instrlib predict with {open_model().name}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        short, three = music(3, RATE_HZ, 2), music(180, RATE_HZ, 2)
        files = {"3 s, wav": (root / "short.wav", short)}
        files |= {f"3 min, {ending}": (root / f"three.{ending}", three) for ending in ("wav", "flac", "ogg", "mp3")}
        for name, (path, sound) in files.items():
            write(path, sound)
            took_s = min(process_time_s(path) for _ in range(ROUNDS))
            goal = "" if path is files["3 s, wav"][0] else f" (goal {GOAL_S:g})"
            print(f"{name:12} {took_s:5.2f} s of process time{goal}")
        minute = music(60, 22_050, 1)
        for minutes in (3, 120):
            with soundfile.SoundFile(root / f"{minutes}.flac", "w", 22_050, 1) as file:
                for _ in range(minutes):
                    file.write(minute)
        first, last = (peak_mb(root / f"{minutes}.flac") for minutes in (3, 120))
        print(f"peak memory: {first:.0f} MB for 3 minutes, {last:.0f} MB for 2 hours (goal: at most {GOAL_MB:g} more)")


if __name__ == "__main__":
    main()
