"""Errors that a user can cause; each message is one sentence: what is wrong, where, and how to continue."""


class InstrlibError(Exception):
    """Base class; the command line prints the message in one line and exits with status 2."""


class AudioError(InstrlibError):
    """A file that cannot be used as audio: unreadable, empty, silent, not finite."""


class CorpusError(InstrlibError):
    """A corpus that is missing, incomplete, altered or has another layout."""


class ConfigError(InstrlibError):
    """A setting that is unknown or out of range."""


class SplitError(InstrlibError):
    """A split that is impossible, for example because a class has too few groups."""


class LeakError(SplitError):
    """A group that occurs in more than one part of a split."""


class StoreError(InstrlibError):
    """A feature store that is damaged or belongs to another corpus or configuration."""


class EvaluationError(InstrlibError):
    """Predictions that cannot be scored."""


class RunError(InstrlibError):
    """A run or study that is missing, incomplete, in use, or stopped by a failed cell."""


class DiskError(InstrlibError):
    """A file that cannot be written: no space, no permission, a read-only disk."""


class WorkerError(InstrlibError):
    """Worker processes or a cluster that failed: killed, absent, or running other code."""
