"""How long a converted network takes for one input, and how much memory, in a process that does nothing else.

`python -m instrlib.models.footprint latency ROUNDS FILE...` and `... memory FILE` write JSON;
`tflite.measure` calls them. This module imports as little as it can: what it measures is the network, not TensorFlow.
"""

import contextlib
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 20
BURST = 10
"""Calls in a row, of which the median counts; then the next network has its turn, so that all see the same machine."""


def latency_ms(files: list[str], n_rounds: int) -> list[list[float]]:
    """Time one input through each network, on one thread, the networks by turns.

    Parameters
    ----------
    files : list of str
        TFLite files.
    n_rounds : int
        Turns of each.

    Returns
    -------
    list of list of float
        For each file and round the median of `BURST` calls in milliseconds.
    """
    interpreters = [_load(file) for file in files]
    for interpreter in interpreters:
        for _ in range(WARM_UP):
            interpreter.invoke()
    rounds = [[_burst_ms(interpreter) for interpreter in interpreters] for _ in range(n_rounds)]
    return [list(times) for times in zip(*rounds, strict=True)]


def peak_memory_kb(file: str) -> float:
    """Measure by how much the process' peak of resident memory grows when a network is loaded and answers one input.

    Parameters
    ----------
    file : str
        A TFLite file.

    Returns
    -------
    float
        In kB (1024 bytes); weights, activations and the runtime's own copies of both. NaN where the system does not
        tell (it is read from Linux' /proc).
    """
    _runtime()
    # Loading the runtime may have peaked higher than a small network ever will: the peak begins anew.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kb()
    _load(file).invoke()
    return _peak_kb() - before


def _runtime() -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter


def _load(file: str) -> Any:
    import numpy as np

    interpreter = _runtime()(model_path=file, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    x = np.linspace(-2, 2, math.prod(given["shape"]), dtype=np.float32)  # any numbers will do
    interpreter.set_tensor(given["index"], x.reshape(given["shape"]))
    return interpreter


def _burst_ms(interpreter: Any) -> float:
    times = []
    for _ in range(BURST):
        began = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def _peak_kb() -> float:
    status = Path("/proc/self/status")
    if not status.is_file():
        return math.nan
    return float(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:")).split()[1])


def main(arguments: list[str]) -> None:
    """Measure what the command line asks for and write it as JSON."""
    what, *rest = arguments
    found = latency_ms(rest[1:], int(rest[0])) if what == "latency" else peak_memory_kb(rest[0])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
