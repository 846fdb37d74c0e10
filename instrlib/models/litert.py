"""TFLite files in the LiteRT runtime, without TensorFlow and pandas."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instrlib.core.io import RunError
from instrlib.core.parallel import without_stderr

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


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
