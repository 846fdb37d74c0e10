"""Transfer learning: embeddings of clips, probes on them, and fine-tuning of networks from another corpus.

Embeddings come from networks trained here, or from YAMNet and VGGish as SavedModels or TFLite files. A SavedModel is a
program that TensorFlow executes, so use only files of its publisher.
"""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler

from instrlib.audio import decode
from instrlib.audio.features import Scaler
from instrlib.core.cache import cached, key
from instrlib.core.config import folders
from instrlib.core.io import (
    AudioError,
    RunError,
    StoreError,
    expanded,
    hash_file,
    in_parts,
    read_json,
    slug,
)
from instrlib.core.parallel import load_keras, parallel_map, without_stderr
from instrlib.data.corpora import Corpus, check_unusable_share
from instrlib.data.files import Remote, fetch, unpack
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore
from instrlib.evaluation.calibration import sigmoid, softmax
from instrlib.evaluation.metrics import best_thresholds, scores
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.layers import Layer
from instrlib.models.trained import load_model, load_scaler, of_clips, read_manifest

if TYPE_CHECKING:
    import keras

TITLES = {"yamnet": "YAMNet", "vggish": "VGGish"}
DIMENSIONS = {"yamnet": 1024, "vggish": 128}
LOG_OFFSETS = {"yamnet": 0.001, "vggish": 0.01}  # added to the mel magnitudes
HOPS = {"yamnet": 48 * 160, "vggish": 96 * 160}  # samples between the starts of two patches
SAMPLE_RATE_HZ = 16_000
PATCH_SAMPLES = 15_600  # under a patch: 96 frames of 400 samples every 160, or 0.975 s
ENDINGS = ("saved_model.pb", ".tflite")  # of several files of one network the first kind is taken
PART_S = 57.6  # longest part of a file that is decoded at a time: a whole number of windows of either network
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse strengths C of the probe's penalty
RATE = 1 / 3  # learning rate of fine-tuning, as a share of that of a training from scratch


@dataclass(frozen=True)
class Embedding:
    """A published network."""

    name: str  # "yamnet" or "vggish"
    path: Path  # a TFLite file or the folder of a SavedModel

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the files of the network and of the code that runs it."""
        files = sorted(one for one in self.path.rglob("*") if one.is_file()) or [self.path]
        return key("models", name=self.name, files=[hash_file(one) for one in files])[:16]

    def embed(self, signal: np.ndarray) -> np.ndarray:
        """Return the embeddings [n_windows, dimension] of mono samples at 16 kHz; short signals are padded."""
        return _reader(self, self.fingerprint)(np.asarray(signal, np.float32))


def available() -> list[Embedding]:
    """Return the networks in `weights_folder()` with "yamnet" or "vggish" in their path.

    SavedModels of TensorFlow Hub whose handles are listed in `INSTRLIB_HUB`, separated by commas, are downloaded there.
    """
    folder, found = weights_folder(), {}
    for handle in os.environ.get("INSTRLIB_HUB", "").replace(",", " ").split():
        _from_hub(handle.rstrip("/"), folder)
    for ending, name in itertools.product(ENDINGS, TITLES):
        for path in sorted(folder.rglob(f"*{ending}")):
            place = path.parent if ending == ENDINGS[0] else path
            words = place.relative_to(folder).as_posix() if place != folder else folder.name
            # A folder with a dot is still being unpacked.
            if name in words.lower() and "/." not in f"/{words}":
                found.setdefault(name, Embedding(name, place))
    return [found[name] for name in sorted(found)]


def weights_folder() -> Path:
    """Return the folder of the published networks: `INSTRLIB_WEIGHTS`, or `weights` in the data folder."""
    named = os.environ.get("INSTRLIB_WEIGHTS")
    return expanded(named, "INSTRLIB_WEIGHTS") if named else folders().data / "weights"


def embed_corpus(
    corpus: Corpus, embedding: Embedding, *, root: Path, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and embeddings (means over windows) of the usable clips of a corpus; parts of it are cached."""
    clips = corpus.manifest
    sounds = [(corpus.root / clip.path, clip.start_s, clip.duration_s) for clip in clips.itertuples()]
    folder = Path(root) / "embeddings" / f"{corpus.fingerprint}-{embedding.fingerprint}"
    tasks = [
        (folder / f"{number:06d}.npz", embedding.fingerprint, functools.partial(_embed, embedding, part))
        for number, part in enumerate(in_parts(sounds, 16))
    ]
    found = parallel_map(cached, tasks, workers=workers, describe=f"embedding by {embedding.name}", isolate=True)
    means = np.concatenate([part["mean"] for part in found])
    usable = np.isfinite(means).all(axis=1)
    check_unusable_share(corpus, int((~usable).sum()))
    return clips.clip_id.to_numpy(str)[usable], means[usable]


@dataclass(frozen=True)
class Probe:
    """A logistic regression as a dense layer: kernel [dimension, n_classes] and bias [n_classes]."""

    kernel: np.ndarray
    bias: np.ndarray
    several: bool

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities [n, n_classes] of embeddings [n, dimension]."""
        return (sigmoid if self.several else softmax)(x @ self.kernel + self.bias)


def fit_probe(
    x: np.ndarray, labels: np.ndarray, held_x: np.ndarray, held_labels: np.ndarray, *, several: bool = False
) -> Probe:
    """Fit a logistic regression on embeddings [n, dimension] scaled to 0 to 1; validation selects the penalty.

    `labels` [n, n_classes] are 1 present, 0 absent, NaN not observed. With `several`, each class gets a regression on
    the clips that observe it.
    """
    scaler = MinMaxScaler().fit(x)
    probes = []
    for penalty in PENALTIES:
        kernel, bias = _regression(scaler.transform(x), labels, penalty, several=several)
        probes.append(Probe(scaler.scale_[:, None] * kernel, bias + scaler.min_ @ kernel, several))
    truth = held_labels if several else held_labels.argmax(axis=1)
    return min(probes, key=lambda probe: scores(truth, probe.predict(held_x))["log_loss"])


def probe_predictions(
    vectors: tuple[np.ndarray, np.ndarray],
    store: FeatureStore,
    splits: Sequence[Sequence[Path]],
    *,
    workers: int | None = None,
) -> Predictions:
    """Fit a probe on clip ids and embeddings per split, first by seed, then by fold, and predict the test parts."""
    clips = store.clips.sort_values("clip_id", ignore_index=True)
    x = pd.DataFrame(vectors[1], vectors[0]).reindex(clips.clip_id)
    if len(bad := x.index[~np.isfinite(x).all(axis=1)]):
        raise RunError(f"The clip {bad[0]!r} has no finite embedding; exclude the clip or embed it again.")
    parts = [clips.clip_id.map(load_split(path, store.segments).parts).to_numpy() for one in splits for path in one]
    tasks = [(x.to_numpy(), store, clips, one) for one in parts]
    found = list(parallel_map(_predict_fold, tasks, workers=workers, describe="probes"))
    return join_seeds(in_parts(found, len(splits[0])))


def embed_network(run: Path, store: FeatureStore, *, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return clip ids and embeddings by a trained network: the mean over segments of the input of its last layer."""
    Pretrained(run).scaler(store)  # checks the settings
    network = read_manifest(run)["key"]
    path = Path(root) / "embeddings" / f"{store.fingerprint}-{network[:16]}.npz"
    task = path, key("models", network=network, store=store.fingerprint), functools.partial(_embed_store, run, store)
    [made] = parallel_map(cached, [task], workers=1, describe="embedding", isolate=True)
    return made["clip_id"], made["mean"]


@dataclass(frozen=True)
class Pretrained:
    """Initialisation for fine-tuning: the body of a trained network, and a probe as the head.

    A random head would distort the body by its first gradients (Kumar et al., 2022, arXiv:2202.10054). `decay` is a
    factor of the learning rate for each row away from the scores (Howard and Ruder, 2018, arXiv:1801.06146); 0 trains
    the head only. With `frozen_norm`, batch normalisation stays as it is.
    """

    folder: Path
    decay: float = 1.0
    frozen_norm: bool = False

    @property
    def spec(self) -> tuple[Layer, ...]:
        """Table of the network."""
        return tuple(Layer(**row) for row in read_manifest(self.folder)["spec"])

    @property
    def rates(self) -> tuple[float, ...]:
        """Factors of the learning rate of the rows; the last one is for the scores."""
        above = np.cumsum([row.units > 0 for row in self.spec][::-1])[::-1]
        return tuple(RATE * float(self.decay**number) for number in (*above, 0))

    @property
    def fingerprint(self) -> str:
        """Hash of the pretrained network and the settings."""
        return key("models", folder=read_manifest(self.folder)["key"], decay=self.decay, frozen_norm=self.frozen_norm)

    def scaler(self, store: FeatureStore) -> Scaler:
        """Return the input scaling of the body; `StoreError` if it was trained with other feature settings."""
        if read_json(self.folder / "preprocessing.json")["features"] != store.config.to_dict():
            raise StoreError(
                f"{self.folder} was trained with other feature settings than {store.folder}; use one profile for both."
            )
        return load_scaler(self.folder)

    def begin(
        self, model: "keras.Model", store: FeatureStore, scaler: Scaler, train: pd.DataFrame, validation: pd.DataFrame
    ) -> None:
        """Set the weights of a new network."""
        body, _ = load_model(self.folder)
        for layer, learned in zip(model.layers[:-1], body.layers[:-1], strict=True):
            layer.set_weights(learned.get_weights())
        x, held_x = (_embed_segments(model, store, scaler, part) for part in (train, validation))
        labels, held = (store.label_matrix(part.drop_duplicates("clip_id")) for part in (train, validation))
        probe = fit_probe(x, labels, held_x, held, several=model.layers[-1].activation.__name__ == "sigmoid")
        model.layers[-1].set_weights([probe.kernel.astype(np.float32), probe.bias.astype(np.float32)])


def windows(signal: np.ndarray, name: str) -> np.ndarray:
    """Return the samples under each patch [n_patches, PATCH_SAMPLES]; YAMNet pads the last patch, VGGish drops it."""
    n_over = max(len(signal) - PATCH_SAMPLES, 0)
    n_filled = PATCH_SAMPLES + (math.ceil(n_over / HOPS[name]) * HOPS[name] if name == "yamnet" else n_over)
    filled = np.pad(np.asarray(signal, np.float32), (0, n_filled - len(signal)))
    return np.lib.stride_tricks.sliding_window_view(filled, PATCH_SAMPLES)[:: HOPS[name]]


def patches(signal: np.ndarray, name: str) -> np.ndarray:
    """Return input patches [n_patches, 96, 64], log-mel magnitudes (Hershey et al., 2017, arXiv:1609.09430)."""
    import tensorflow as tf

    magnitude = np.abs(tf.signal.stft(windows(signal, name), 400, 160, 512))
    to_mel = tf.signal.linear_to_mel_weight_matrix(64, 257, SAMPLE_RATE_HZ, 125.0, 7500.0).numpy()
    return np.log(magnitude @ to_mel + np.float32(LOG_OFFSETS[name]))


def _from_hub(handle: str, folder: Path) -> None:
    """Download a SavedModel of TensorFlow Hub, unless it is there; see https://www.tensorflow.org/hub/hosting."""
    place = folder / slug(handle)
    if not place.is_dir():
        archive = fetch(Remote(f"{handle}?tf-hub-format=compressed", f"{place.name}.tar.gz"), folder)
        unpack(archive, place)
        archive.unlink()


def _embed(embedding: Embedding, sounds: list[tuple[Path, float, float]]) -> dict[str, np.ndarray]:
    """Return the mean embedding of each sound (path, start, duration); NaN where it is silent or damaged."""
    means = np.full((len(sounds), DIMENSIONS[embedding.name]), np.nan, np.float32)
    for number, (path, start_s, duration_s) in enumerate(sounds):
        vectors = []
        for first_s in np.arange(max(1, math.ceil(duration_s / PART_S))) * PART_S:
            place = {"start_s": start_s + first_s, "duration_s": min(PART_S, duration_s - first_s)}
            with contextlib.suppress(AudioError):  # a silent or damaged part
                vectors.append(embedding.embed(decode.load(path, sample_rate_hz=SAMPLE_RATE_HZ, **place)))
        if vectors:
            means[number] = np.concatenate(vectors).mean(axis=0)
    return {"mean": means}


@functools.lru_cache(maxsize=2)
def _reader(embedding: Embedding, fingerprint: str) -> Callable[[np.ndarray], np.ndarray]:
    """Load a network; the fingerprint is part of the cache's key, so that a changed file is loaded again."""
    path, name = embedding.path, embedding.name
    try:
        run, cut = (_load_tflite if path.suffix == ".tflite" else _load_savedmodel)(path, DIMENSIONS[name])
        if (n_values := run(cut(np.zeros(PATCH_SAMPLES), name)[0]).size) != DIMENSIONS[name]:
            raise ValueError(f"it returns {n_values} values per window, not {DIMENSIONS[name]}")
    except Exception as error:  # every library raises other errors for damaged files
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} cannot be used as {TITLES[name]} ({reason}); download it again.") from error
    return lambda signal: np.stack([run(one).ravel() for one in cut(signal, name)])


def _load_savedmodel(path: Path, dimension: int) -> tuple[Callable, Callable]:
    load_keras()
    import tensorflow as tf

    with without_stderr():
        module = tf.saved_model.load(str(path))

    def run(window: np.ndarray) -> np.ndarray:
        answers = [np.asarray(one) for one in tf.nest.flatten(module(window))]
        return max(answers, key=lambda one: one.shape == (1, dimension))

    return run, windows


def _load_tflite(path: Path, dimension: int) -> tuple[Callable, Callable]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate, which fuses layers, the tensor before the scores is readable in files that return scores only.
    settings = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    with without_stderr():
        interpreter = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True, **settings)
        interpreter.allocate_tensors()
    pooled = ("reduce_mean", "global_average_pooling2d")
    inner = [one for one in interpreter.get_tensor_details() if any(word in one["name"].lower() for word in pooled)]
    tensors = [*inner, *interpreter.get_output_details()]
    vector = [one for one in tensors if one["shape"][-1:] == np.prod(one["shape"]) == dimension][-1]
    scale, zero = vector["quantization"]
    given = interpreter.get_input_details()[0]
    shape = list(given["shape"])
    if len(shape) < 3:  # samples, in old files of any number
        shape = [*[1] * (len(shape) - 1), PATCH_SAMPLES]
        interpreter.resize_tensor_input(given["index"], shape)
        interpreter.allocate_tensors()

    def run(one: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], one.reshape(shape))
        interpreter.invoke()
        values = interpreter.get_tensor(vector["index"]).astype(np.float32)
        return (values - zero) * np.float32(scale) if scale else values

    return run, patches if len(shape) > 2 else windows


def _regression(x: np.ndarray, labels: np.ndarray, penalty: float, *, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of one regression, or of one for each class."""
    kernel, bias = np.zeros((x.shape[1], labels.shape[1])), np.full(labels.shape[1], -30.0)  # next to no probability
    if not several:
        model = LogisticRegression(C=penalty, max_iter=5000, class_weight="balanced").fit(x, labels.argmax(axis=1))
        bias[model.classes_] = 0
        columns = model.classes_[-len(model.coef_) :]  # for two classes scikit-learn returns that of the second
        kernel[:, columns], bias[columns] = model.coef_.T, model.intercept_
        return kernel, bias
    for number, column in enumerate(labels.T):
        observed = np.isfinite(column)
        y = column[observed]
        if len(np.unique(y)) < 2:  # always or never present: its share
            bias[number] = logit((y.sum() + 1) / (len(y) + 2))
        else:
            model = LogisticRegression(C=penalty, max_iter=5000).fit(x[observed], y)
            kernel[:, number], bias[number] = model.coef_[0], model.intercept_[0]
    return kernel, bias


def _predict_fold(x: np.ndarray, store: FeatureStore, clips: pd.DataFrame, parts: np.ndarray) -> Predictions:
    labels = store.label_matrix(clips)
    train, held_out, test = (parts == name for name in ("train", "validation", "test"))
    probe = fit_probe(x[train], labels[train], x[held_out], labels[held_out], several=store.multilabel)
    found = of_clips(store, clips[test], probe.predict(x[test]))
    if store.multilabel:
        found["thresholds"], _ = best_thresholds(labels[held_out], probe.predict(x[held_out]))
    return found


def _embed_store(run: Path, store: FeatureStore) -> dict[str, np.ndarray]:
    model, scaler = load_model(run)
    segments = store.segments.sort_values("clip_id", kind="stable")
    vectors = _embed_segments(model, store, scaler, segments).astype(np.float32)
    return {"clip_id": segments.clip_id.drop_duplicates().to_numpy(str), "mean": vectors}


def _embed_segments(model: "keras.Model", store: FeatureStore, scaler: Scaler, segments: pd.DataFrame) -> np.ndarray:
    """Return the mean embedding of each clip [n_clips, dimension], in the order of their first segments."""
    body = load_keras().Model(model.input, model.layers[-1].input)
    parts = np.array_split(segments.row.to_numpy(), max(1, len(segments) // 256))
    vectors = np.concatenate([np.asarray(body(store.read(rows, scaler), training=False)) for rows in parts])
    return pd.DataFrame(vectors, dtype=float).groupby(segments.clip_id.to_numpy(), sort=False).mean().to_numpy()
