"""Archives of a corpus and MD5 hashes of its files, from mirdata."""

import contextlib
import functools
import logging
import re
from importlib import import_module
from pathlib import Path

from instrlib.core.io import InstrlibError, hash_file, read_json
from instrlib.core.parallel import track
from instrlib.data.download import Remote
from instrlib.data.files import audio_files, is_audio


def remotes(name: str) -> tuple[tuple[Remote, ...], Remote]:
    """Return the archives of a corpus, and mirdata's index of their files."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with contextlib.redirect_stdout(None):  # mirdata prints, and changes the logging of Python
        module = import_module(f"mirdata.datasets.{name}")
    root.handlers[:] = handlers
    root.setLevel(level)
    of_index = module.INDEXES[module.INDEXES["default"]].remote
    *archives, index = (
        Remote(one.url, one.filename, f"md5:{one.checksum}", folder=re.sub(r"(-v[\d.]+)?\.\w+$", "", one.filename))
        for one in (*module.REMOTES.values(), of_index)
    )
    return tuple(archives), index


def compare(index: Path, folder: Path, *, hashes: bool = True) -> list[str]:
    """List missing or altered files of mirdata's index in a folder; paths may begin with the folder name.

    Audio files with another suffix were converted and count as neither.
    """
    if not index.is_file():
        return [f"{index.name} is missing, so no checksum was compared; `instrlib download` fetches it."]
    try:
        content = read_json(index)
        pairs = [*(content.get("metadata") or {}).values()]
        pairs += [pair for files in content["tracks"].values() for pair in files.values()]
        listed = {path.removeprefix(f"{folder.name}/"): md5 for path, md5 in pairs if path}
    except (InstrlibError, AttributeError, KeyError, TypeError, ValueError):
        return [f"{index.name} is not mirdata's index; delete it and download the corpus again."]
    findings, names = [], functools.cache(audio_files)
    for path, md5 in track(sorted(listed.items()), total=len(listed), describe=f"comparing with {index.name}"):
        file = folder / path
        if not file.is_file():
            if not is_audio(file) or file.stem not in names(file.parent):
                findings.append(f"{path}: the file is missing, which {index.name} lists.")
        elif hashes and (found := hash_file(file, algorithm="md5")) != md5:
            findings.append(f"{path}: the file was altered: its md5 is {found}, not {md5}.")
    return findings
