"""How fast one process renders the built-in corpus: composing, playing, room, noise and writing."""

import tempfile
import time
from pathlib import Path

from instrlib.data import rendered

CLIPS_PER_CLASS = 24


def main() -> None:
    """Print the real-time factor of each class."""
    rendered.render("piano", 0)  # loads the soundfont and the imports
    for label in rendered.CLASSES:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            rendered.load(Path(folder), clips_per_class=CLIPS_PER_CLASS, classes=(label,), workers=1)
            spent_s = time.perf_counter() - begin
        print(f"{label:16s} {CLIPS_PER_CLASS * rendered.DURATION_S / spent_s:6.0f} x real time")


if __name__ == "__main__":
    main()
