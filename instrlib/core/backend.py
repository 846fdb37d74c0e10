"""Keras on TensorFlow, imported when first needed and without its notes about the processor."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

_LOCK = threading.RLock()
"""Two threads that redirect stderr in turns would leave it redirected."""


def load_keras() -> ModuleType:
    """Import and return Keras 3; nothing is written to stderr, which would end up in a notebook."""
    if "tensorflow" in sys.modules:
        import keras

        return keras
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_stderr():  # the first notes come before that setting is read
        import keras
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")  # it warns about many networks in one process
    return keras


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Discard what is written to file descriptor 2; TensorFlow writes there from C++, past sys.stderr."""
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
