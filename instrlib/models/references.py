"""The networks of five published projects, rebuilt from their descriptions as data: input, table, training."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError
from instrlib.core.io import read_json
from instrlib.core.parallel import parallel_map
from instrlib.data.dataset import Corpus
from instrlib.data.inputs import Inputs
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore, build_store, open_store
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models import classical
from instrlib.models.answers import answer_test
from instrlib.models.experiments import Variant
from instrlib.models.layers import Layer
from instrlib.models.training import check_trained_with, load_model, load_scaler, read_manifest


@dataclass(frozen=True)
class Reference:
    """A published network.

    Attributes
    ----------
    features : FeatureConfig
        What it sees.
    spec : tuple of Layer
        Its table; the softmax over the classes follows.
    train : TrainConfig
        How it was trained.
    source : str
        What it was made for.
    reported : str
        The accuracy that its authors give, on their own data.
    differs : str
        What is done otherwise here, and what its description leaves open.
    """

    features: FeatureConfig
    spec: tuple[Layer, ...]
    train: TrainConfig
    source: str
    reported: str
    differs: str


KINDS = ("trivial", "traditional", "published", "ours")
"""What a model is, in the order of tables and figures."""

_WARM_UP = 5

_WINDOW = {"n_fft": 2048, "hop_length": 512, "n_mels": 128, "fmin_hz": 0.0}

# Where a description leaves the epochs open, training ends when 8 have brought nothing on validation, or after 20.
REFERENCES: dict[str, Reference] = {
    "layered-four": Reference(
        FeatureConfig(**_WINDOW, segment_s=12.0, segment_hop_s=12.0, max_segments=1, scaling="segment"),
        (
            Layer("conv",  16,    3,      1,     2,  True),
            Layer("conv",  32,    3,      1,     2,  True),
            Layer("conv",  64,    3,      1,     2,  True),
            Layer("flatten"),
            Layer("dense", 128),
        ),
        TrainConfig(
            epochs=20, batch_size=32, learning_rate=1e-3, schedule="constant", patience=8, class_weights=False
        ),
        "guitar, drums, violin and piano, clips of 12 s",
        ".56, test",
        "its single-label task; batch, rate and epochs are not described",
    ),
    "irmas-app": Reference(
        FeatureConfig(**_WINDOW),
        (
            # kind      units  kernel  stride  pool  norm   dropout
            Layer("conv",  32,    3,      1,     2,  True),
            Layer("conv",  64,    3,      1,     2,  True),
            Layer("conv",  128,   3,      1,     2,  True),
            Layer("average"),
            Layer("dense", 128,   dropout=0.5),
        ),
        TrainConfig(
            epochs=30,
            batch_size=32,
            learning_rate=5e-4,
            schedule="plateau",
            patience=30,
            augment=AugmentConfig(
                time_masks=1, time_mask_s=19 * 512 / 22_050, frequency_masks=1, frequency_mask_bins=9
            ),
        ),
        "ten instruments of IRMAS, 3-s excerpts",
        ".54, validation",
        "scaled by band, because training and app scale otherwise; masks from 0 to 19 frames and 0 to 9 bands wide",
    ),
    "nsynth-condition": Reference(
        # 2.96 s give the 128 frames that it cuts from 3 s.
        FeatureConfig(**_WINDOW, segment_s=2.96, segment_hop_s=2.96, scaling="fixed"),
        (
            Layer("conv",  32,    3,      1,     2,  padding="valid"),
            Layer("conv",  64,    3,      1,     2,  padding="valid"),
            Layer("conv",  128,   3,      1,     2,  padding="valid"),
            Layer("flatten"),
            Layer("dense", 256,   dropout=0.5),
        ),
        TrainConfig(
            epochs=20, batch_size=32, learning_rate=1e-3, schedule="constant", patience=8, class_weights=False
        ),
        "eight families of NSynth, single notes",
        ".93, validation",
        "its third version; batch, rate and epochs are not described",
    ),
    "freesound-cutmix": Reference(
        # Its 275 frames are those of a window and a step meant for 16 kHz; 1.99 s give as many, centred.
        FeatureConfig(
            kind="mfcc",
            segment_s=1.99,
            segment_hop_s=1.99,
            n_fft=512,
            hop_length=160,
            n_mels=26,
            n_mfcc=13,
            fmin_hz=0.0,
            scaling="fixed",
        ),
        (
            Layer("conv",  40,    3,      dropout=0.2),
            Layer("conv",  32,    1,      dropout=0.2),
            Layer("conv",  16,    1,      dropout=0.2),
            Layer("flatten"),
            Layer("dense", 64,    dropout=0.2),
            Layer("dense", 16,    dropout=0.2),
            Layer("dense", 12,    dropout=0.1),
        ),
        TrainConfig(
            epochs=20,
            batch_size=32,
            learning_rate=1e-3,
            schedule="constant",
            patience=8,
            class_weights=False,
            augment=AugmentConfig(mix="cutmix", axes="both", beta=1.0, share=0.5),
        ),
        "five instruments of FSDKaggle2018, chunks of 2 s",
        ".86, test",
        "CutMix drawn for every batch, half of the batches left clean; batch and epochs are not described",
    ),
    "openmic-vggish": Reference(
        FeatureConfig(**_WINDOW),
        (
            Layer("time_average"),
            Layer("dense", 1024,  norm=True, dropout=0.5),
            Layer("dense", 512,   norm=True, dropout=0.4),
        ),
        TrainConfig(
            epochs=40, batch_size=32, learning_rate=1e-4, schedule="plateau", patience=8, class_weights=False
        ),
        "20 instruments of OpenMIC, several at once",
        "none",
        "one label and a softmax; the mean log-mel spectrum of 128 bands stands in for its 128 VGGish features",
    ),
}  # fmt: skip
"""The networks by the names of their projects, the most expensive first."""

LIMITS = {
    "smoke": dict.fromkeys(REFERENCES, 1),
    "quick": dict.fromkeys(("layered-four", "irmas-app", "nsynth-condition", "freesound-cutmix"), 1),
    "full": {},
}
"""At most so many epochs, by profile and name; a reference that is not listed gets as many as described."""

SEEDS = 1
"""The references are trained from so many of the study's seeds: some have fifty times our network's weights."""


def get_reference(name: str) -> Reference:
    """Return the reference called `name`.

    Raises
    ------
    ConfigError
        When there is none; the message lists those there are.

    Examples
    --------
    >>> get_reference("nsynth-condition").features.shape
    (128, 128)
    """
    if name not in REFERENCES:
        raise ConfigError(f"Unknown reference {name!r}; there is: {', '.join(REFERENCES)}.")
    return REFERENCES[name]


def table(profile: str) -> pd.DataFrame:
    """Say what each reference is, and how much of its training a profile has time for.

    Parameters
    ----------
    profile : str
        A name of `LIMITS`.

    Returns
    -------
    pandas.DataFrame
        One row a reference.
    """
    rows = {
        name: {
            "made_for": one.source,
            "input": f"{one.features.n_bins} x {one.features.n_frames} {one.features.kind}",
            "segment_s": one.features.segment_s,
            "learning_rate": one.train.learning_rate,
            "schedule": one.train.schedule,
            "epochs": one.train.epochs,
            "epochs_here": settings(name, profile).epochs,
            "reported": one.reported,
            "otherwise_here": one.differs,
        }
        for name, one in REFERENCES.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def settings(name: str, profile: str) -> TrainConfig:
    """Return the training settings of a reference under a profile: as described, but for the number of epochs.

    Parameters
    ----------
    name, profile : str
        Names of `REFERENCES` and `LIMITS`.

    Returns
    -------
    TrainConfig

    Examples
    --------
    >>> [settings("irmas-app", profile).epochs for profile in ("quick", "full")]
    [1, 30]
    """
    config = get_reference(name).train
    return dataclasses.replace(config, epochs=min(config.epochs, LIMITS[profile].get(name, config.epochs)))


def cut_short(profile: str) -> list[str]:
    """Name the references that a profile trains for fewer epochs than they take; see `LIMITS`.

    Examples
    --------
    >>> cut_short("full")
    []
    """
    return [name for name, one in REFERENCES.items() if settings(name, profile).epochs < one.train.epochs]


def first_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return those of the study's seeds that the references are trained from; see `SEEDS`."""
    return tuple(seeds[:SEEDS])


def build_stores(corpus: Corpus, *, root: Path, workers: int | None = None) -> dict[str, FeatureStore]:
    """Compute the features that each reference sees; those that see the same share them.

    Parameters
    ----------
    corpus : Corpus
        The clips.
    root : Path
        Folder of all stores.
    workers : int, optional
        Number of processes.

    Returns
    -------
    dict of str to FeatureStore
        By name of the reference.
    """
    return {name: build_store(corpus, one.features, root=root, workers=workers) for name, one in REFERENCES.items()}


def variants(inputs: dict[str, Inputs], profile: str, *, seeds: Sequence[int], suffix: str = "") -> list[Variant]:
    """Return the trainings of references.

    Parameters
    ----------
    inputs : dict of str to Inputs
        Features and splits of those that are trained.
    profile : str
        A name of `LIMITS`.
    seeds : sequence of int
        A network for each.
    suffix : str
        Put behind each name.

    Returns
    -------
    list of Variant
    """
    return [
        Variant(
            name + suffix,
            get_reference(name).spec,
            settings(name, profile),
            data.store.folder,
            splits=data.splits,
            seeds=tuple(seeds),
        )
        for name, data in inputs.items()
    ]


def answer_segments(
    folder: Path, networks: Sequence[Sequence[Path]], inputs: Inputs, segments: Inputs, *, workers: int | None = None
) -> Predictions:
    """Let networks that were trained on clips answer the segments of the same test parts, one by one.

    Parameters
    ----------
    folder : Path
        Where the answers are kept.
    networks : sequence of sequence of Path
        Run folders, first by seed, then by fold; see `experiments.Outcome`.
    inputs : Inputs
        Features and splits that they were trained with.
    segments : Inputs
        The same by segment; see `leak.by_segment`.
    workers : int, optional
        Number of processes.

    Returns
    -------
    dict
        See `evaluation.Predictions`.

    Raises
    ------
    RunError
        When a network was trained with another split.
    """
    tasks = [
        (folder / f"seed-{seed}-fold-{fold}.npz", network, inputs.splits[fold], segments.store.folder, split)
        for seed, by_fold in enumerate(networks)
        for fold, (network, split) in enumerate(zip(by_fold, segments.splits, strict=True))
    ]
    found = iter(
        list(parallel_map(_answer_segments, tasks, workers=workers, describe="answering segments", isolate=True))
    )
    return join_seeds([[next(found) for _ in by_fold] for by_fold in networks])


def measure_latency(
    networks: dict[str, Path], classifiers: dict[str, Path], *, stores: dict[str, Path], split: Path, repeats: int = 30
) -> pd.Series:
    """Measure how long one answer to one segment takes, from its stored picture to probabilities.

    One process with one thread does it, model after model, so nothing else of the study runs beside it: the median of
    `repeats` answers after a warm-up. Scaling counts, or the statistics that a classifier needs; computing the picture
    from the sound does not, nor does loading the model.

    Parameters
    ----------
    networks, classifiers : dict of str to Path
        Run folders of `training.train_model` and of `classical.answer`, by name.
    stores : dict of str to Path
        Folder of the features of each.
    split : Path
        What the classifiers are fitted on again, because they are not kept.
    repeats : int
        Answers timed.

    Returns
    -------
    pandas.Series
        Milliseconds by name.
    """
    task = (networks, classifiers, stores, split, repeats)
    return pd.Series(next(iter(parallel_map(_latencies, [task], workers=1, describe="latency", isolate=True))))


def overview(
    scores: pd.DataFrame,
    kinds: dict[str, str],
    *,
    networks: pd.DataFrame,
    classifiers: pd.DataFrame,
    latency_ms: pd.Series,
) -> pd.DataFrame:
    """Put everything that is known of the models into one table.

    Parameters
    ----------
    scores : pandas.DataFrame
        What `statistics.score_table` gives.
    kinds : dict of str to str
        One of `KINDS` for each model.
    networks, classifiers : pandas.DataFrame
        What `experiments.describe` and `classical.describe` give.
    latency_ms : pandas.Series
        From `measure_latency`.

    Returns
    -------
    pandas.DataFrame
        One row a model, by kind and then by accuracy: `kind`, `accuracy` with `low` and `high`, `macro_f1` with
        `macro_f1_low` and `macro_f1_high`, `parameters`, `multiply_adds` (of networks), `training_s` (of one training
        or fit) and `latency_ms`; NaN where there is none.
    """
    by_score = {name: rows.set_index("model") for name, rows in scores.groupby("score")}
    table = by_score["accuracy"][["estimate", "low", "high"]].rename(columns={"estimate": "accuracy"})
    macro = by_score["macro_f1"][["estimate", "low", "high"]]
    table = table.join(macro.set_axis(["macro_f1", "macro_f1_low", "macro_f1_high"], axis=1))
    costs = pd.concat(
        [networks[["parameters", "multiply_adds", "training_s"]], classifiers[["parameters", "training_s"]]]
    )
    table = table.join(costs.astype(float)).join(latency_ms.rename("latency_ms"))
    table.insert(0, "kind", pd.Categorical(table.index.map(kinds), KINDS))
    return table.sort_values(["kind", "accuracy"], ascending=[True, False], kind="stable")


def _answer_segments(path: Path, network: Path, trained_on: Path, store_folder: Path, split_path: Path) -> Predictions:
    trained = read_manifest(network)
    check_trained_with(network, "split", trained["split"], read_json(trained_on)["fingerprint"])
    store = open_store(store_folder)
    parts = load_split(split_path, store.segments)

    def load() -> Callable[[np.ndarray], np.ndarray]:
        return load_model(network)[0].predict_on_batch

    return answer_test(path, trained["key"], load, store=store, scaler=load_scaler(network), split=parts)


def _latencies(
    networks: dict[str, Path], classifiers: dict[str, Path], stores: dict[str, Path], split: Path, repeats: int
) -> dict[str, float]:
    found = {}
    for name, folder in networks.items():
        store = open_store(stores[name])
        found[name] = _median_ms(_network(folder, store), store, repeats)
    for name, folder in classifiers.items():
        store = open_store(stores[name])
        found[name] = _median_ms(_classifier(folder, store, split, name), store, repeats)
    return found


def _network(folder: Path, store: FeatureStore) -> Callable[[np.ndarray], np.ndarray]:
    model, scaler = load_model(folder)
    import tensorflow as tf

    forward = tf.function(functools.partial(model, training=False))
    return lambda rows: forward(tf.constant(store.read(rows, scaler))).numpy()


def _classifier(folder: Path, store: FeatureStore, split: Path, name: str) -> Callable[[np.ndarray], np.ndarray]:
    fitted = classical.refit(folder, store, load_split(split, store.segments), name, seed=0)
    predict = classical.predictor(fitted, store.config, len(store.classes))
    pictures = dataclasses.replace(store, config=dataclasses.replace(store.config, scaling="fixed"))
    return lambda rows: predict(pictures.read(rows))


def _median_ms(answer: Callable[[np.ndarray], np.ndarray], store: FeatureStore, repeats: int) -> float:
    row = store.segments.row.to_numpy()[:1]
    times = []
    for _ in range(_WARM_UP + repeats):
        began = time.perf_counter()
        answer(row)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[_WARM_UP:])
