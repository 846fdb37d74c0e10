"""The errors that a user can cause: one clear sentence each, which says what, where and how to go on."""


class InstrlibError(Exception):
    """Base of every error that a user can cause; the command line prints it in one line and exits with 2."""


class AudioError(InstrlibError):
    """A file that cannot be used as audio: unreadable, empty, silent, not finite."""


class CorpusError(InstrlibError):
    """A corpus that is missing, incomplete, altered or does not have the layout that is expected."""


class ConfigError(InstrlibError):
    """A setting that is unknown or out of range."""


class SplitError(InstrlibError):
    """A split that cannot be made, for example because a class has too few groups."""


class LeakError(SplitError):
    """A group stands on more than one side of a split."""


class StoreError(InstrlibError):
    """A feature store that is corrupted or belongs to another corpus or configuration."""


class EvaluationError(InstrlibError):
    """Predictions that cannot be scored: not finite, of the wrong shape, none at all."""


class RunError(InstrlibError):
    """A run folder that is missing, incomplete, foreign or in use."""


class StudyError(InstrlibError):
    """A study that cannot run: in use, with an unknown notebook or parameter, stopped by a cell that failed."""


class DiskError(InstrlibError):
    """A file that cannot be written: no space, no permission, a read-only disk."""


class WorkerError(InstrlibError):
    """Work that processes or a cluster cannot do: one was killed, none is there, or it is not fit for it."""
