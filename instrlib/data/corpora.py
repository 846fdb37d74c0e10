"""The corpora by name: information, loading, download and validation."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from instrlib.core.config import folders
from instrlib.core.io import ConfigError, CorpusError, expanded
from instrlib.data import mirdata_index
from instrlib.data.dataset import KNOWN, Corpus, CorpusInfo, Found, build, check_unusable_share
from instrlib.data.dataset import validate as validate_found
from instrlib.data.download import Remote, fetch, unpack
from instrlib.data.files import walk_audio

if TYPE_CHECKING:
    from instrlib.core.config import Profile

NAMES = ("rendered", "fsdkaggle2018", "irmas", "openmic2018", "nsynth", "kaggle_instruments", "folder")
"""Each is a module beside this one, with its `INFO` and `find(root) -> Found`; `rendered` has its own `load`."""


def info(name: str) -> CorpusInfo:
    """Return name, licence, citation and source of a corpus.

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
        Folder of the corpus; default: `data/<name>`.
    profile : Profile
        Sets the number of clips per class.
    seed : int
        Seed for rendering and drawing.
    classes : sequence of str, optional
        Classes to use; default: all.

    Raises
    ------
    ConfigError
        When the corpus or a class is unknown.
    CorpusError
        When the corpus is missing or incomplete, or more than 5 % of its clips are unusable.
    """
    module, root = _module(name), _root(name, data)
    if name == "rendered":
        corpus = module.load(root, clips_per_class=profile.clips_per_class, seed=seed, classes=classes)
    else:
        corpus = read(name, root, classes=classes, max_clips_per_class=profile.max_clips_per_class, seed=seed)
    check_unusable_share(name, corpus.n_unusable, corpus.n_unusable + len(corpus.manifest))
    return corpus


def read(
    name: str,
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read a corpus from its folder, for any number of unusable clips; see `dataset.build`."""
    module, root = _module(name), Path(root)
    capped = {"classes": classes, "max_clips_per_class": max_clips_per_class, "seed": seed}
    return build(module.INFO, root, module.find(root), **capped)


def on_disk(name: str, data: Path | str | None = None) -> str:
    """Return one line on the state of a corpus on disk, such as "221 audio files in data/fsdkaggle2018"."""
    known, root = info(name), _root(name, data)
    n_files = sum(1 for _ in walk_audio(root))
    return f"{n_files:,} audio files in {root}" if n_files else f"nothing in {root}. {known.how_to_get}"


def download(name: str, data: Path | str | None = None) -> None:
    """Download the missing files of a corpus, check and unpack them; remove the unpacked archives.

    Interrupted downloads resume. Raises `ConfigError` if the publisher does not allow automatic downloads,
    `CorpusError` for damaged or incomplete files.
    """
    module, root = _module(name), _root(name, data)
    archives, index = _remotes(name)
    if not archives:
        raise ConfigError(f"`instrlib download` cannot fetch {name}. {module.INFO.how_to_get}")
    listed = fetch(index, root) if index else None
    for archive in archives:
        if not (root / archive.folder).is_dir():
            unpack(fetch(archive, root), root, archive.folder)
        (root / archive.filename).unlink(missing_ok=True)
    missing = [path for found in _all_found(module, root) for path in found.clips.path if not (root / path).exists()]
    missing = missing or (mirdata_index.compare(listed, root / module.INDEXED, hashes=False) if listed else [])
    if missing:
        raise CorpusError(
            f"{root} lacks {len(missing):,} files of the release, such as {missing[0]} Move the folder that lacks them "
            f"away and run `instrlib download {name}` again."
        )


def validate(name: str, data: Path | str | None = None) -> list[str]:
    """Return one line for each fault of a corpus on disk.

    Every file is decoded completely. If `download` has fetched the index of mirdata, MD5 hashes are compared as well.
    """
    module, root = _module(name), _root(name, data)
    if name == "rendered":
        return module.validate(root)
    try:
        findings = [line for found in _all_found(module, root) for line in validate_found(root, found)]
    except CorpusError as error:
        return [str(error)]
    _, index = _remotes(name)
    compared = mirdata_index.compare(root / index.filename, root / module.INDEXED) if index else []
    return [*findings, *compared]


def _all_found(module: ModuleType, root: Path) -> list[Found]:
    return module.find_all(root) if hasattr(module, "find_all") else [module.find(root)]


def _remotes(name: str) -> tuple[tuple[Remote, ...], Remote | None]:
    """Return the archives of a corpus, and mirdata's index of their files if there is one."""
    if hasattr(_module(name), "INDEXED"):
        return mirdata_index.remotes(name)
    return tuple(Remote(**one) for one in KNOWN.get(name, {}).get("archives", ())), None


def _module(name: str) -> ModuleType:
    if name not in NAMES:
        raise ConfigError(f"Unknown corpus {name!r}; choose one of {', '.join(NAMES)}.")
    return import_module(f"instrlib.data.{name}")


def _root(name: str, data: Path | str | None) -> Path:
    return expanded(str(data)).absolute() if data else folders().data / name
