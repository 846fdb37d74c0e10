"""How fast one process makes the embedded corpus: composing, playing, room, noise and writing, all of it."""

import tempfile
import time
from pathlib import Path

from instrlib.data import rendered, soundfont

CLIPS_PER_CLASS = 24


def main() -> None:
    """Print the real-time factor over all classes and of each."""
    rendered.render("piano", 0)  # loads the soundfont and the imports
    print(f"engine: {soundfont.engine_name()}")
    total_s = 0.0
    for label in rendered.CLASSES:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            rendered.load(Path(folder), clips_per_class=CLIPS_PER_CLASS, classes=(label,), workers=1)
            spent_s = time.perf_counter() - begin
        total_s += spent_s
        print(f"{label:16s} {CLIPS_PER_CLASS * rendered.DURATION_S / spent_s:6.0f} x real time")
    sound_s = len(rendered.CLASSES) * CLIPS_PER_CLASS * rendered.DURATION_S
    print(
        f"{'all classes':16s} {sound_s / total_s:6.0f} x real time in one process ({sound_s:.0f} s in {total_s:.1f} s)"
    )


if __name__ == "__main__":
    main()
