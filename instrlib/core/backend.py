"""Lazy import of Keras on TensorFlow, without its startup messages."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

_LOCK = threading.RLock()
"""Two threads that redirect stderr in turns would leave it redirected."""


def load_keras() -> ModuleType:
    """Import and return Keras 3, without output on stderr, which would appear in notebooks."""
    if "tensorflow" in sys.modules:
        import keras

        return keras
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_stderr():  # the first messages precede that setting
        import keras
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")  # it warns about many networks in one process
    return keras


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Discard output to file descriptor 2, to which TensorFlow writes from C++, bypassing sys.stderr."""
    with _LOCK:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)
