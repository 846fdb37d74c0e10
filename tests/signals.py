"""What a process is to heed: a job in the background, or under nohup, begins with signals ignored and hands that on."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def heeding(command: list[str]) -> list[str]:
    """Return a command line that runs a command which heeds signals as in a terminal."""
    heed = "import os, signal, sys; [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)]; "
    return [sys.executable, "-c", heed + "os.execv(sys.argv[1], sys.argv[1:])", *command]


@contextmanager
def interrupts_heeded() -> Iterator[None]:
    """Heed SIGINT in this process as in a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
