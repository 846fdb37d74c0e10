"""Clip embeddings: the mean over a clip of the last layer of a pretrained network before its scores.

Networks of this project need no download; YAMNet and VGGish come from files (`pretrained`) or TensorFlow Hub.
"""

import contextlib
import functools
import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instrlib.audio import decode
from instrlib.core import cache
from instrlib.core.config import folders
from instrlib.core.io import AudioError, InstrlibError, hash_file, whole
from instrlib.core.parallel import parallel_map
from instrlib.data.corpora import Corpus, check_unusable_share
from instrlib.data.files import Remote, fetch, unpack
from instrlib.models import pretrained

HUB_HANDLES = {"yamnet": "https://tfhub.dev/google/yamnet/1", "vggish": "https://tfhub.dev/google/vggish/1"}

PART_S = 57.6
"""Longest part of a file that is decoded at a time: a whole number of windows of either network."""

_CHUNK_CLIPS = 16


@dataclass(frozen=True)
class Embedding:
    """A published network: name ("yamnet", "vggish" or "vggish-pca"), path and format of its file."""

    name: str
    path: Path
    form: str

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return pretrained.DIMENSIONS[self.name]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the files of the network and of the code that runs it."""
        hashes = [hash_file(path) for path in pretrained.files(self.path, self.form, self.name)]
        return cache.key("models", name=self.name, files=hashes)[:16]

    def embed(self, signal: np.ndarray) -> np.ndarray:
        """Return the embeddings [n_windows, dimension] of mono samples at 16 kHz; short signals are padded."""
        return _load(self, self.fingerprint)(np.asarray(signal, np.float32))


def available() -> list[Embedding]:
    """Return the published networks on this machine, from `INSTRLIB_WEIGHTS` or `weights` in the data folder.

    TensorFlow Hub handles listed in `INSTRLIB_HUB`, separated by commas, are downloaded there unless the cache of the
    Hub (`TFHUB_CACHE_DIR`) has them. A SavedModel is a program: use only publishers that you trust.
    """
    found = dict(pretrained.find(weights_folder()))
    for handle in _handles():
        place = _from_hub(handle, weights_folder())
        if isinstance(place, Path):
            for name, one in pretrained.find(place, called=handle).items():
                found.setdefault(name, one)
    return [Embedding(name, *one) for name, one in sorted(found.items())]


def missing() -> list[str]:
    """Return one sentence for each missing published network, with the way to get it."""
    there = {one.name for one in available()}
    # Without the path, because the sentence appears in notebooks, which must not depend on the machine.
    folder = "the folder that INSTRLIB_WEIGHTS names" if os.environ.get("INSTRLIB_WEIGHTS") else "data/weights"
    refused = [place for handle in _handles() if isinstance(place := _from_hub(handle, weights_folder()), str)]
    return refused + [
        f"{pretrained.TITLES[name]} is not in {folder}: put its SavedModel or a file with {name} in its name "
        f"(.tflite{', .h5' if name == 'yamnet' else ''}) there, or set INSTRLIB_HUB={handle} to download it."
        for name, handle in HUB_HANDLES.items()
        if name not in there
    ]


def weights_folder() -> Path:
    """Return the folder of the published networks."""
    named = os.environ.get("INSTRLIB_WEIGHTS")
    return whole(named, "INSTRLIB_WEIGHTS") if named else folders().data / "weights"


def embed_corpus(
    corpus: Corpus, embedding: Embedding, *, root: Path, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Embed every clip of a corpus by a published network; results are cached, in parts.

    Returns
    -------
    clip_id : ndarray of str [n_clips]
        Without unusable clips; a share above `corpora.MAX_UNUSABLE_SHARE` raises `CorpusError`.
    vectors : ndarray [n_clips, dimension]
        Means over the windows of each clip.
    """
    clips = corpus.manifest
    sounds = [(corpus.root / clip.path, clip.start_s, clip.duration_s) for clip in clips.itertuples()]
    folder = Path(root) / "embeddings" / f"{corpus.fingerprint}-{embedding.fingerprint}"
    tasks = [
        (folder / f"{first:06d}.npz", embedding, sounds[first : first + _CHUNK_CLIPS])
        for first in range(0, len(sounds), _CHUNK_CLIPS)
    ]

    def make() -> dict[str, np.ndarray]:
        describe = f"embedding by {embedding.name}"
        parts = list(parallel_map(_embed_part, tasks, workers=workers, describe=describe, isolate=True))
        return {"mean": np.concatenate([part["mean"] for part in parts])}

    means = cache.cached(folder.with_name(f"{folder.name}.npz"), embedding.fingerprint, make)["mean"]
    shutil.rmtree(folder, ignore_errors=True)
    usable = np.isfinite(means).all(axis=1)
    check_unusable_share(corpus, int((~usable).sum()))
    return clips.clip_id.to_numpy(str)[usable], means[usable]


def _handles() -> list[str]:
    return [handle for part in os.environ.get("INSTRLIB_HUB", "").split(",") if (handle := part.strip().rstrip("/"))]


@functools.cache
def _from_hub(handle: str, folder: Path) -> Path | str:
    """Return the folder of a TensorFlow Hub SavedModel, downloaded if necessary, or why it is unavailable.

    The package tensorflow_hub does not import with current setuptools, so this implements the protocol of the Hub
    (https://www.tensorflow.org/hub/hosting). The result is cached, so an absent server is tried once.
    """
    hub_cache = os.environ.get("TFHUB_CACHE_DIR", "")
    cached = Path(hub_cache) / hashlib.sha1(handle.encode(), usedforsecurity=False).hexdigest()
    if hub_cache and (cached / "saved_model.pb").is_file():
        return cached
    place = folder / re.sub(r"\W+", "-", handle.rpartition("://")[2])
    partial, archive = folder / f".{place.name}.partial", folder / f"{place.name}.tar.gz"
    if not place.is_dir():
        try:
            remote = Remote(f"{handle}?tf-hub-format=compressed", archive.name, None, None)
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed run
            unpack(fetch(remote, folder), partial)
        except InstrlibError as error:
            return f"{handle} cannot be downloaded: {error}"
        if (partial / "saved_model.pb").is_file():
            partial.replace(place)
        else:
            shutil.rmtree(partial)
    archive.unlink(missing_ok=True)
    return place if place.is_dir() else f"{handle} holds no SavedModel; take a handle of a TF2 model."


@functools.lru_cache(maxsize=2)
def _load(embedding: Embedding, fingerprint: str) -> pretrained.Reader:
    del fingerprint  # part of the cache key only: a changed file is loaded again
    return pretrained.reader(embedding.path, embedding.form, embedding.name)


def _embed_part(path: Path, embedding: Embedding, sounds: list[tuple[Path, float, float]]) -> dict[str, np.ndarray]:
    def make() -> dict[str, np.ndarray]:
        means = np.full((len(sounds), embedding.dimension), np.nan, np.float32)
        for number, sound in enumerate(sounds):
            vectors = [embedding.embed(signal) for signal in _parts(*sound)]
            if vectors:
                means[number] = np.concatenate(vectors).mean(axis=0)
        return {"mean": means}

    return cache.cached(path, embedding.fingerprint, make)


def _parts(path: Path, start_s: float, duration_s: float) -> Iterator[np.ndarray]:
    """Yield a clip in parts of bounded length, without silent and damaged ones."""
    for number in range(max(1, math.ceil(duration_s / PART_S))):
        part_s = min(PART_S, duration_s - number * PART_S)
        with contextlib.suppress(AudioError):
            yield decode.load(
                path,
                sample_rate_hz=pretrained.SAMPLE_RATE_HZ,
                start_s=start_s + number * PART_S,
                duration_s=part_s,
            )
