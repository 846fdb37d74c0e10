"""The corpora by name: what is known of each, and how to load, fetch and check it."""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from instrlib.core.config import folders
from instrlib.core.errors import ConfigError
from instrlib.data.base import MAX_PROBLEM_SHARE, Corpus, CorpusInfo, check_problem_share, unusable

if TYPE_CHECKING:  # what trains a network uses this module, and is not to change with a profile
    from instrlib.core.config import Profile

NAMES = ("rendered", "fsdkaggle2018", "irmas", "openmic2018", "nsynth", "kaggle_instruments", "folder")


def info(name: str) -> CorpusInfo:
    """Return what is known of a corpus before it is on disk.

    Raises
    ------
    ConfigError
        When there is no corpus of that name.

    Examples
    --------
    >>> info("fsdkaggle2018").url
    'https://zenodo.org/records/2552860'
    """
    return _module(name).INFO


def load(
    name: str,
    *,
    data: Path | str | None = None,
    profile: "Profile",
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Corpus:
    """Load a corpus at the size of a profile.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    data : Path or str, optional
        Its folder; `data/<name>` when left out or empty.
    profile : Profile
        Decides how many clips a class has.
    seed : int
        Seed of what is rendered or drawn.
    classes : sequence of str, optional
        Classes to use; all when left out.

    Returns
    -------
    Corpus

    Raises
    ------
    ConfigError
        When the corpus or a class is unknown.
    CorpusError
        When it is missing or not whole, or more than 5 % of its clips are unusable.
    """
    module, root = _module(name), _root(name, data)
    if name == "rendered":
        corpus = module.load(root, clips_per_class=profile.clips_per_class, seed=seed, classes=classes)
    else:
        corpus = module.load(root, max_clips_per_class=profile.max_clips_per_class, seed=seed, classes=classes)
    n_unusable = len(unusable(corpus.problems))
    check_problem_share(name, n_unusable, n_unusable + len(corpus.manifest), limit=MAX_PROBLEM_SHARE)
    return corpus


def on_disk(name: str, data: Path | str | None = None) -> str:
    """Say in one line what there is of a corpus on disk.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    data : Path or str, optional
        Its folder; `data/<name>` when left out or empty.

    Returns
    -------
    str
        Such as "221 audio files in data/fsdkaggle2018".
    """
    from instrlib.data.local import is_audio

    known, root = info(name), _root(name, data)
    # os.walk, since Path.rglob takes many times as long for the 300,000 files of NSynth.
    n_files = sum(is_audio(Path(name)) for _, _, names in os.walk(root) for name in names)
    return f"{n_files:,} audio files in {root}" if n_files else f"nothing in {root}; {known.how_to_get}"


def download(name: str, data: Path | str | None = None) -> None:
    """Fetch a corpus from its publisher into its folder; what is there already is not fetched again.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    data : Path or str, optional
        Its folder; `data/<name>` when left out or empty.

    Raises
    ------
    ConfigError
        When the corpus is unknown, or its publisher does not let a program download it; the sentence tells the way.
    CorpusError
        When it cannot be fetched whole.
    """
    module = _module(name)
    if not hasattr(module, "download"):
        raise ConfigError(f"`instrlib download` does not fetch {name}. {module.INFO.how_to_get}")
    module.download(_root(name, data))


def validate(name: str, data: Path | str | None = None) -> list[str]:
    """List what is wrong with a corpus on disk, one line for each finding; nothing when all is well.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    data : Path or str, optional
        Its folder; `data/<name>` when left out or empty.

    Returns
    -------
    list of str

    Raises
    ------
    ConfigError
        When the corpus is unknown.
    """
    return _module(name).validate(_root(name, data))


def _module(name: str) -> ModuleType:
    if name not in NAMES:
        raise ConfigError(f"Unknown corpus {name!r}; there is: {', '.join(NAMES)}.")
    return import_module(f"instrlib.data.{name}")


def _root(name: str, data: Path | str | None) -> Path:
    return Path(data).expanduser().absolute() if data else folders().data / name
