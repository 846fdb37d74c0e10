"""What a process is to heed: a job in the background, or under nohup, begins with signals ignored and hands that on."""

import sys


def heeding(command: list[str]) -> list[str]:
    """Return a command line that runs a command which heeds signals as in a terminal."""
    heed = "import os, signal, sys; [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)]; "
    return [sys.executable, "-c", heed + "os.execv(sys.argv[1], sys.argv[1:])", *command]
