"""TFLite files in the LiteRT runtime, without TensorFlow and pandas: loading, running, latency and memory."""

import contextlib
import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instrlib.core.io import RunError
from instrlib.core.parallel import without_stderr

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

WARM_UP = 20
BURST = 10
"""Calls in a row, of which the median counts; then the next network is measured, so that all see the same load."""


def load(path: Path, *, way_out: str = "convert the network again.") -> "Interpreter":
    """Load a TFLite file for one thread; `way_out` completes the `RunError` for a damaged file."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        with without_stderr():  # LiteRT reports its kernels
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{path} is missing or damaged; {way_out}") from error
    return interpreter


def run(interpreter: "Interpreter", x: np.ndarray) -> dict[int, np.ndarray]:
    """Return the outputs for inputs [n, ...] by their number of axes, such as 2 for logits and 4 for maps."""
    given = interpreter.get_input_details()[0]["index"]
    details = {len(one["shape"]): one for one in interpreter.get_output_details()}
    found = {axes: np.empty((len(x), *one["shape"][1:]), np.float32) for axes, one in details.items()}
    for number, one_input in enumerate(x):
        interpreter.set_tensor(given, one_input[None])
        interpreter.invoke()
        for axes, one in details.items():
            found[axes][number] = interpreter.get_tensor(one["index"])[0]
    return found


def latency_ms(files: list[Path], n_rounds: int) -> list[list[float]]:
    """Return the latency of one input in ms for each file and round: the median of `BURST` calls on one thread."""

    def call_ms(interpreter: "Interpreter") -> float:
        began = time.perf_counter()
        interpreter.invoke()
        return 1000 * (time.perf_counter() - began)

    interpreters = [_ready(file) for file in files]
    for interpreter in interpreters:
        for _ in range(WARM_UP):
            interpreter.invoke()
    rounds = [[statistics.median(call_ms(one) for _ in range(BURST)) for one in interpreters] for _ in range(n_rounds)]
    return [list(times) for times in zip(*rounds, strict=True)]


def peak_memory_kb(file: Path) -> float:
    """Return the growth of peak process memory by loading and running a network, in kB of 1024 bytes.

    It includes weights, activations and copies in the runtime. NaN on systems without /proc.
    """
    import ai_edge_litert.interpreter  # noqa: F401

    # Reset the peak, because the import can exceed the memory of the network.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kb()
    _ready(file).invoke()
    return _peak_kb() - before


def _ready(file: Path) -> "Interpreter":
    interpreter = load(file)
    given = interpreter.get_input_details()[0]
    x = np.linspace(-2, 2, math.prod(given["shape"]), dtype=np.float32)  # arbitrary values
    interpreter.set_tensor(given["index"], x.reshape(given["shape"]))
    return interpreter


def _peak_kb() -> float:
    status = Path("/proc/self/status")
    if not status.is_file():
        return math.nan
    return float(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:")).split()[1])
