"""A sound as a few hundred numbers that a network learned elsewhere: the mean over a clip of what it sees in windows.

Three kinds: networks of our own, which need no download; YAMNet and VGGish from files (see `pretrained`); the same from
TensorFlow Hub. `available` tells what is at hand, `missing` what is not and how to get it.
"""

import contextlib
import functools
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.audio import decode as audio
from instrlib.audio import frontends
from instrlib.audio.features import extract, scale, segment_starts
from instrlib.core.backend import load_keras
from instrlib.core.cache import cached, code_hash, versions
from instrlib.core.config import FeatureConfig, folders
from instrlib.core.errors import AudioError, InstrlibError, StoreError
from instrlib.core.io import hash_file, hash_json, read_json, whole
from instrlib.core.parallel import parallel_map
from instrlib.data.dataset import Corpus, check_unusable_share
from instrlib.data.download import Remote, fetch, unpack
from instrlib.data.store import FeatureStore, build_store, open_store
from instrlib.models import pretrained
from instrlib.models.trained import load_model, load_scaler, read_manifest

if TYPE_CHECKING:
    import keras

HUB_HANDLES = {
    "yamnet": "https://tfhub.dev/google/yamnet/1",
    "vggish": "https://tfhub.dev/google/vggish/1",
}
"""Where TensorFlow Hub has each of the two networks."""

FORMAT = 1
"""Raised whenever what is kept for a clip would change for the same network and the same windows."""

PART_S = 57.6
"""Longest part of a file that is decoded at a time: a whole number of the windows of either network."""

_CHUNK_CLIPS = 16
_CHUNK_STORED = 512
_BATCH = 128


@dataclass(frozen=True)
class Embedding:
    """A network that turns a sound into vectors over time; it travels to other processes by its path.

    Attributes
    ----------
    name : str
        "own", or that given to `own`; "yamnet", "vggish" or "vggish-pca".
    dimension : int
        Numbers in a vector.
    sample_rate_hz : int
        Rate of the samples it is given.
    window_s, hop_s : float
        How much sound a vector stands for, and the distance between the starts of two.
    path : Path
        The file or folder that holds the network.
    form : str
        What lies there: "run" (a run folder of `train.train_model`) or one of `pretrained.FORMS`.
    """

    name: str
    dimension: int
    sample_rate_hz: int
    window_s: float
    hop_s: float
    path: Path
    form: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors: the network's files, the code that feeds it, the versions."""
        if self.form == "run":
            made_of = read_manifest(self.path)["key"]
        else:
            made_of = [hash_file(path) for path in pretrained.files(self.path, self.form, self.name)]
        return hash_json([FORMAT, self.name, self.form, made_of, code_hash("models"), versions()])[:16]

    def embed(self, signal: np.ndarray) -> np.ndarray:
        """Embed a sound.

        Parameters
        ----------
        signal : np.ndarray [shape=(n,)]
            Mono samples at `sample_rate_hz`, full scale 1.0, of any length: a short one is filled up with silence.

        Returns
        -------
        np.ndarray [shape=(n_windows, dimension), float32]
            At least one vector.

        Raises
        ------
        RunError
            When the network's file is missing, damaged or not what its name says.
        """
        return _load(self, self.fingerprint)(np.asarray(signal, np.float32))


def own(folder: Path, *, name: str = "own") -> Embedding:
    """Take a network of ours as an embedding: what its last layer weighs, the mean over frequency and time.

    Parameters
    ----------
    folder : Path
        Run folder of `train.train_model`.
    name : str
        What to call it.

    Returns
    -------
    Embedding

    Raises
    ------
    RunError
        When the folder holds no finished run.
    """
    config = _own_config(folder)
    dimension = _before_scores(folder).output.shape[-1]
    return Embedding(
        name, dimension, config.sample_rate_hz, config.segment_s, config.segment_hop_s, Path(folder), "run"
    )


def available() -> list[Embedding]:
    """Return the published networks that are at hand.

    They are looked for in the folder that `INSTRLIB_WEIGHTS` names, else in `weights` of the data folder; see
    `pretrained.find` for the names. What `INSTRLIB_HUB` lists (handles of TensorFlow Hub with commas between them) is
    fetched into that folder unless it is there or in the Hub's own cache, `TFHUB_CACHE_DIR`. A SavedModel is a program:
    name none here whose publisher you do not trust.

    Returns
    -------
    list of Embedding
        Each network once: "yamnet", "vggish", and "vggish-pca" where `vggish_pca_params.npz` lies beside VGGish.
    """
    found = dict(pretrained.find(weights_folder()))
    for handle in _handles():
        place = _from_hub(handle, weights_folder())
        if isinstance(place, Path):
            for name, one in pretrained.find(place, called=handle).items():
                found.setdefault(name, one)
    return [_published(name, *one) for name, one in sorted(found.items())]


def missing() -> list[str]:
    """Say which published networks are not at hand, and how to get each.

    Returns
    -------
    list of str
        A sentence each; none when both are there.
    """
    there = {one.name for one in available()}
    # Not the folder's path: the sentence stands in notebooks, which say the same on every machine.
    folder = "the folder that INSTRLIB_WEIGHTS names" if os.environ.get("INSTRLIB_WEIGHTS") else "data/weights"
    refused = [place for handle in _handles() if isinstance(place := _from_hub(handle, weights_folder()), str)]
    return refused + [
        f"{pretrained.TITLES[name]} is not in {folder}: put {pretrained.ACCEPTED[name]} there, or set "
        f"INSTRLIB_HUB={handle} to have it fetched."
        for name, handle in HUB_HANDLES.items()
        if name not in there
    ]


def weights_folder() -> Path:
    """Return the folder of published networks: `INSTRLIB_WEIGHTS`, else `weights` in the data folder.

    Raises
    ------
    ConfigError
        When `INSTRLIB_WEIGHTS` is not a whole path.
    """
    named = os.environ.get("INSTRLIB_WEIGHTS")
    return whole(named, "INSTRLIB_WEIGHTS") if named else folders().data / "weights"


def embed_corpus(
    corpus: Corpus, embedding: Embedding, *, root: Path, workers: int | None = None
) -> dict[str, np.ndarray]:
    """Embed every clip of a corpus once: asked again, what was kept is given; a run that was killed goes on.

    Parameters
    ----------
    corpus : Corpus
        The clips.
    embedding : Embedding
        The network.
    root : Path
        Folder of all feature stores; a network of ours reads the store of its own settings there, which is built when
        it is missing. The vectors are kept in its folder `embeddings`.
    workers : int, optional
        Processes; see `instrlib.core.parallel.n_workers`.

    Returns
    -------
    dict of str to np.ndarray
        `clip_id` (str) [shape=(n_clips,)], in the order of the manifest and without the clips that cannot be used;
        `mean` and `max` [shape=(n_clips, dimension), float32], over the windows of a clip.

    Raises
    ------
    CorpusError
        When more than 5 % of the clips are unusable.
    RunError
        When the network cannot be read.
    """
    if embedding.form == "run":
        store = build_store(corpus, _own_config(embedding.path), root=root, workers=workers)
        return embed_store(store, embedding, root=root, workers=workers)
    clips = corpus.manifest
    sounds = [(corpus.root / clip.path, clip.start_s, clip.duration_s) for clip in clips.itertuples()]
    tasks = [sounds[first : first + _CHUNK_CLIPS] for first in range(0, len(sounds), _CHUNK_CLIPS)]
    kept = _kept(root, corpus.fingerprint, embedding, _embed_sounds, tasks, workers)
    usable = kept.pop("usable")
    n_before = corpus.n_unusable
    n_lost = int((~usable).sum()) + n_before
    check_unusable_share(corpus.name, n_lost, len(clips) + n_before)
    return {
        "clip_id": clips.clip_id.to_numpy(str)[usable],
        **{name: values[usable] for name, values in kept.items()},
    }


def embed_store(
    store: FeatureStore, embedding: Embedding, *, root: Path, workers: int | None = None
) -> dict[str, np.ndarray]:
    """Embed the clips of a feature store by a network of ours; see `embed_corpus`.

    Parameters
    ----------
    store : FeatureStore
        Features of the settings that the network was trained with; it may be of another corpus.
    embedding : Embedding
        What `own` gives.
    root, workers
        See `embed_corpus`.

    Returns
    -------
    dict of str to np.ndarray
        As `embed_corpus`, over the segments of a clip.

    Raises
    ------
    StoreError
        When the features are of other settings.
    """
    config = _own_config(embedding.path)
    if config.fingerprint != store.config.fingerprint:
        raise StoreError(
            f"{embedding.path} was trained on features of other settings than those in {store.folder}; build a store "
            "with the settings in its preprocessing.json."
        )
    segments = store.segments.sort_values("clip_id", kind="stable")
    rows = [group.to_numpy() for _, group in segments.groupby("clip_id", sort=True).row]
    tasks = [(store.folder, rows[first : first + _CHUNK_STORED]) for first in range(0, len(rows), _CHUNK_STORED)]
    kept = _kept(root, store.fingerprint, embedding, _embed_segments, tasks, workers)
    return {"clip_id": segments.clip_id.unique().astype(str), **kept}


def _published(name: str, path: Path, form: str) -> Embedding:
    window_s = frontends.PATCH_FRAMES * frontends.HOP_SAMPLES / frontends.SAMPLE_RATE_HZ
    hop_s = pretrained.FRONT_ENDS[name].hop_s
    return Embedding(name, pretrained.DIMENSIONS[name], frontends.SAMPLE_RATE_HZ, window_s, hop_s, path, form)


def _handles() -> list[str]:
    return [handle for part in os.environ.get("INSTRLIB_HUB", "").split(",") if (handle := part.strip().rstrip("/"))]


@functools.cache
def _from_hub(handle: str, folder: Path) -> Path | str:
    """Return the folder of a SavedModel of TensorFlow Hub, fetched when it is not there; else why it cannot be had.

    The package tensorflow_hub cannot be imported with today's setuptools, so this speaks the Hub's protocol itself
    (https://www.tensorflow.org/hub/hosting). The answer is remembered: nobody waits twice for a server that is away.
    """
    cache = os.environ.get("TFHUB_CACHE_DIR", "")
    cached = Path(cache) / hashlib.sha1(handle.encode(), usedforsecurity=False).hexdigest()
    if cache and (cached / "saved_model.pb").is_file():
        return cached
    place = folder / re.sub(r"\W+", "-", handle.rpartition("://")[2])
    partial, archive = folder / f".{place.name}.partial", folder / f"{place.name}.tar.gz"
    if not place.is_dir():
        try:
            remote = Remote(f"{handle}?tf-hub-format=compressed", archive.name, None)
            shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
            unpack(fetch(remote, folder), partial)
        except InstrlibError as error:
            return f"{handle} cannot be had: {error}"
        if (partial / "saved_model.pb").is_file():
            partial.replace(place)
        else:
            shutil.rmtree(partial)
    if archive.exists():  # a run that was killed has left it, or it was unpacked just now
        archive.unlink()
    return place if place.is_dir() else f"{handle} holds no SavedModel; take a handle of a TF2 model."


def _own_config(folder: Path) -> FeatureConfig:
    read_manifest(folder)
    return FeatureConfig.from_dict(read_json(Path(folder) / "preprocessing.json")["features"])


def _before_scores(folder: Path) -> "keras.Model":
    model, _ = load_model(Path(folder))
    return load_keras().Model(model.input, model.layers[-1].input)


@functools.lru_cache(maxsize=2)
def _load(embedding: Embedding, fingerprint: str) -> Callable[[np.ndarray], np.ndarray]:
    """Load a network once a process; the fingerprint tells one that was trained anew from the one that was there."""
    if embedding.form != "run":
        return pretrained.reader(embedding.path, embedding.form, embedding.name)
    config, scaler, network = _own_config(embedding.path), load_scaler(embedding.path), _before_scores(embedding.path)

    def read(signal: np.ndarray) -> np.ndarray:
        starts = (segment_starts(len(signal) / config.sample_rate_hz, config) * config.sample_rate_hz).round()
        parts = [signal[int(first) :][: config.segment_samples] for first in starts]
        # As in a feature store, silent segments do not count, unless there is nothing else.
        parts = [one for one in parts if not audio.is_silent(one)] or parts
        values = np.stack([extract(one, config).astype(np.float16) for one in parts])
        return _predict(network, scale(values, config, scaler)[..., None])

    return read


def _predict(network: "keras.Model", x: np.ndarray) -> np.ndarray:
    return np.concatenate([network.predict_on_batch(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])


def _kept(
    root: Path,
    what: str,
    embedding: Embedding,
    function: Callable[..., dict[str, np.ndarray]],
    tasks: Sequence[Any],
    workers: int | None,
) -> dict[str, np.ndarray]:
    """Compute the arrays of every task and join them; each task's are kept until the whole is."""
    folder = Path(root) / "embeddings" / f"{what}-{embedding.fingerprint}"

    def make() -> dict[str, np.ndarray]:
        calls = [
            (folder / f"{number:06d}.npz", embedding.fingerprint, function, embedding, task)
            for number, task in enumerate(tasks)
        ]
        describe = f"embedding by {embedding.name}"
        parts = list(parallel_map(_keep_part, calls, workers=workers, describe=describe, isolate=True))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    whole = cached(folder.with_name(f"{folder.name}.npz"), embedding.fingerprint, make)
    shutil.rmtree(folder, ignore_errors=True)
    return whole


def _keep_part(
    path: Path, key: str, function: Callable[..., dict[str, np.ndarray]], embedding: Embedding, task: Any
) -> dict[str, np.ndarray]:
    return cached(path, key, lambda: function(embedding, task))


def _embed_sounds(embedding: Embedding, sounds: list[tuple[Path, float, float]]) -> dict[str, np.ndarray]:
    """Mean and maximum over the windows of each clip; of one that cannot be used, zeros."""
    mean, highest = (np.zeros((len(sounds), embedding.dimension), np.float32) for _ in range(2))
    usable = np.zeros(len(sounds), bool)
    for number, sound in enumerate(sounds):
        vectors = [embedding.embed(signal) for signal in _parts(*sound, embedding.sample_rate_hz)]
        if vectors:
            joined = np.concatenate(vectors)
            mean[number], highest[number], usable[number] = joined.mean(axis=0), joined.max(axis=0), True
    return {"mean": mean, "max": highest, "usable": usable}


def _parts(path: Path, start_s: float, duration_s: float, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Yield a clip in parts of bounded length; those that are silent or cannot be decoded are left out."""
    n_parts = max(1, math.ceil(duration_s / PART_S))
    for number in range(n_parts):
        part_s = min(PART_S, duration_s - number * PART_S)
        with contextlib.suppress(AudioError):
            yield audio.load(path, sample_rate_hz=sample_rate_hz, start_s=start_s + number * PART_S, duration_s=part_s)


def _embed_segments(embedding: Embedding, task: tuple[Path, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean and maximum over the stored segments of each clip."""
    folder, rows = task
    store = replace(open_store(folder), config=_own_config(embedding.path))
    scaler, network = load_scaler(embedding.path), _before_scores(embedding.path)
    joined = np.concatenate(rows)
    read = [
        _predict(network, store.read(joined[first : first + _BATCH], scaler)) for first in range(0, len(joined), _BATCH)
    ]
    by_clip = np.split(np.concatenate(read), np.cumsum([len(one) for one in rows])[:-1])
    return {
        "mean": np.stack([one.mean(axis=0) for one in by_clip]),
        "max": np.stack([one.max(axis=0) for one in by_clip]),
    }
