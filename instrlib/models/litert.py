"""TFLite files in the LiteRT runtime, which needs no TensorFlow."""

from pathlib import Path
from typing import TYPE_CHECKING

from instrlib.core.backend import without_stderr
from instrlib.core.errors import RunError

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


def load(path: Path, *, way_out: str) -> "Interpreter":
    """Load a TFLite file, ready to be given an input, on one thread.

    Parameters
    ----------
    path : Path
        The file.
    way_out : str
        How to go on when it cannot be read: the end of the sentence that says so.

    Returns
    -------
    ai_edge_litert.interpreter.Interpreter

    Raises
    ------
    RunError
        When the file is missing or damaged.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        with without_stderr():  # it tells which kernels it uses
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{path} is missing or damaged; {way_out}") from error
    return interpreter
