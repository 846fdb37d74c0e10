"""Keras on TensorFlow, imported when first needed and without its page of notes about the processor."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

_QUIET = threading.RLock()
"""Two threads that led stderr away in turns would leave it there."""


def load_keras() -> ModuleType:
    """Import Keras and return it; nothing is written to stderr, which would end up in a notebook.

    Returns
    -------
    module
        `keras`, version 3.
    """
    if "tensorflow" in sys.modules:
        import keras

        return keras
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_stderr():  # its first notes come before that setting is heeded
        import keras
        import tensorflow as tf
    # Many networks in one process are what it warns of, and what is done here.
    tf.get_logger().setLevel("ERROR")
    return keras


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Lead file descriptor 2 nowhere; TensorFlow writes there from C++, past Python's sys.stderr."""
    with _QUIET:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)
