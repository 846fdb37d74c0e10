"""A corpus is a table: one row a clip, with its label and the group that must not cross a split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.errors import CorpusError
from instrlib.core.io import hash_json

COLUMNS = ("clip_id", "path", "start_s", "duration_s", "label", "group", "split")
"""What every manifest holds; a corpus may add columns of its own after these."""

CONTENT = "content"
"""A column of corpora from disk: hash of the file's bytes. It counts in the fingerprint, so that a file that was
repaired or recorded again under its old name and length is not taken for what it was."""

PROBLEM_COLUMNS = ("clip_id", "path", "reason")

LEFT_OUT = "left out: "
"""How the reason begins of a usable clip that a corpus leaves out on purpose; it does not count as unusable."""

MAX_PROBLEM_SHARE = 0.05
"""Share of unusable clips above which a run stops."""


@dataclass(frozen=True)
class CorpusInfo:
    """What is known of a corpus before it is on disk.

    Attributes
    ----------
    name, title : str
        The name used on the command line, and the full one.
    licence, citation : str
        Printed before a download and repeated in the report.
    url : str
        Where a person finds it; empty when it is made here.
    size : str
        Size of the download, in words.
    how_to_get : str
        One sentence: the command or the steps.
    multilabel : bool
        Whether a clip may hold several instruments, each of them named.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str
    size: str
    how_to_get: str
    multilabel: bool = False


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk.

    Attributes
    ----------
    info : CorpusInfo
        Name, licence, citation.
    root : Path
        Folder that `path` in the manifest is relative to.
    manifest : pandas.DataFrame
        One row a clip: `clip_id` (unique str), `path` (str, relative to root), `start_s` (where the clip begins in
        the file), `duration_s`, `label` (one of `classes`; see `strata` where a clip has several), `group` (str:
        recording, session, performer or instrument; whatever must not cross a split) and `split` ("train",
        "validation" or "test" where the publisher fixed it, else ""). Sorted by `clip_id`, with a plain integer index.
    classes : tuple of str
        The labels, in the order of the network's outputs.
    problems : pandas.DataFrame
        Clips that were left out: `clip_id`, `path`, `reason`.
    labels : np.ndarray [shape=(n_clips, n_classes), float32], optional
        Of a corpus with several labels a clip: 1 where the class is present, 0 where it is absent, NaN where nobody
        looked.
    """

    info: CorpusInfo
    root: Path
    manifest: pd.DataFrame
    classes: tuple[str, ...]
    problems: pd.DataFrame
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse a manifest that would mislead what comes after."""
        missing = [name for name in COLUMNS if name not in self.manifest]
        if missing:
            raise CorpusError(f"{self.info.name}: the manifest lacks the column {', '.join(missing)}.")
        if self.manifest.empty:
            raise CorpusError(f"{self.info.name}: no usable clip in {self.root}; {self.info.how_to_get}")
        twice = self.manifest.clip_id[self.manifest.clip_id.duplicated()]
        if len(twice):
            raise CorpusError(f"{self.info.name}: the clip id {twice.iloc[0]!r} stands twice in the manifest.")
        unknown = sorted(set(self.manifest.label) - set(self.classes))
        if unknown:
            raise CorpusError(f"{self.info.name}: label outside the list of classes: {', '.join(unknown)}.")
        if self.labels is not None:
            _check_labels(self.info.name, self.labels, len(self.manifest), self.classes)

    @property
    def name(self) -> str:
        """The corpus's name on the command line."""
        return self.info.name

    @property
    def targets(self) -> np.ndarray:
        """Index of each clip's class, int64 [shape=(n_clips,)]."""
        return pd.Categorical(self.manifest.label, categories=list(self.classes)).codes.astype(np.int64)

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have several labels."""
        return self.labels is not None

    @property
    def fingerprint(self) -> str:
        """Hash of the manifest, the class list and the labels: the same on every machine for the same clips."""
        columns = [*COLUMNS, CONTENT] if CONTENT in self.manifest else list(COLUMNS)
        table = self.manifest[columns].assign(
            start_s=self.manifest.start_s.round(4), duration_s=self.manifest.duration_s.round(4)
        )
        several = {} if self.labels is None else {"labels": self.labels}
        return hash_json({"classes": self.classes, "rows": table.to_numpy().tolist(), **several})[:16]


def strata(labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Give each clip of several labels one class, by which clips are drawn, split and counted: its rarest one.

    So every class keeps its share in each part of a split, the rare ones first of all.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_classes)]
        1 present, 0 absent, NaN not observed.
    classes : tuple of str
        Name of each class.

    Returns
    -------
    list of str
        The class present that the fewest clips have; of a clip in which none is known to be present, the observed
        class that is the rarest.

    Raises
    ------
    CorpusError
        When a clip has no observed class.

    Examples
    --------
    >>> strata(np.array([[1, 1], [1, 0], [0, np.nan]]), ("piano", "banjo"))
    ['banjo', 'piano', 'piano']
    """
    observed = np.isfinite(labels)
    if not observed.any(axis=1).all():
        raise CorpusError(f"The clip in row {int((~observed.any(axis=1)).argmax())} has no label at all; leave it out.")
    present = labels == 1
    candidates = np.where(present.any(axis=1, keepdims=True), present, observed)
    count = np.where(candidates, present.sum(axis=0), np.inf)
    return [classes[number] for number in count.argmin(axis=1)]


def problem_table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Make the table of clips that were left out from (clip_id, path, reason) rows."""
    return pd.DataFrame(rows, columns=list(PROBLEM_COLUMNS), dtype=str)


def unusable(problems: pd.DataFrame) -> pd.DataFrame:
    """Return the clips that something is wrong with, without those that were left out on purpose."""
    return problems[~problems.reason.astype(str).str.startswith(LEFT_OUT)]


def check_problem_share(name: str, n_problems: int, n_clips: int, *, limit: float) -> None:
    """Stop when too many clips are unusable.

    Parameters
    ----------
    name : str
        The corpus, for the message.
    n_problems, n_clips : int
        Unusable clips, and all clips with them.
    limit : float
        Largest share that is accepted, 0 to 1.

    Raises
    ------
    CorpusError
        When the share is above `limit`.
    """
    if n_clips and n_problems / n_clips > limit:
        raise CorpusError(
            f"{name}: {n_problems} of {n_clips} clips are unusable, more than the {limit:.0%} that are accepted; "
            "`instrlib validate` lists them with their reasons."
        )


def _check_labels(name: str, labels: np.ndarray, n_clips: int, classes: tuple[str, ...]) -> None:
    if labels.shape != (n_clips, len(classes)):
        raise CorpusError(f"{name}: the labels are of shape {labels.shape}, not {(n_clips, len(classes))}.")
    if not np.isin(labels[np.isfinite(labels)], (0, 1)).all():
        raise CorpusError(f"{name}: a label must be 1 (present), 0 (absent) or NaN (not observed).")
    for value, word in ((1, "present"), (0, "absent")):
        never = [one for one, column in zip(classes, labels.T, strict=True) if not (column == value).any()]
        if never:
            raise CorpusError(
                f"{name}: {', '.join(never)} is observed {word} in no clip, so it cannot be learned or tested; leave "
                "that class out."
            )
