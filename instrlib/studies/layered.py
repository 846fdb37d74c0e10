"""Networks that hear several instruments at once: their training on layers, and what they answer to mixtures."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.config import AugmentConfig, Profile, TrainConfig, folders
from instrlib.core.errors import CorpusError, LeakError
from instrlib.core.io import expanded, hash_json, in_parts
from instrlib.core.parallel import parallel_map
from instrlib.data.dataset import Corpus, strata
from instrlib.data.inputs import Inputs
from instrlib.data.splits import Split
from instrlib.data.store import FeatureStore, build_store, open_store
from instrlib.evaluation.metrics import decisions
from instrlib.evaluation.predictions import Predictions
from instrlib.models.answers import answer_test
from instrlib.models.layers import Layer
from instrlib.models.train import train_model
from instrlib.models.trained import load_model, load_scaler, open_trained, part_segments, predict_clips
from instrlib.models.variants import run_folder
from instrlib.studies.layered_scores import Answer, all_or_none, choose_thresholds, score_table, truth_of_clips
from instrlib.studies.mixing import MixConfig, Mixtures

EPOCHS_RATIO = 1.5
"""Times as many epochs as the baseline has."""

MIXED_SHARE = 0.6
"""Of the batches that are mixed. Both were found on the validation mixtures of the quick study: twice the epochs, other
learning rates, smaller batches or a smaller network ranked no better, and mixing every batch ranked a little worse."""


def recipe(profile: Profile, config: MixConfig) -> TrainConfig:
    """Return how a network is trained on mixtures: as the baseline of notebook 02, for longer, on layered examples.

    A mixture is harder than a clip and there are more of them, so it takes more epochs until nothing more is learned.
    Some batches stay as they are: single instruments are learned faster, and what is learned of them helps.

    Parameters
    ----------
    profile : Profile
        Its `train` is the baseline's.
    config : MixConfig
        What the validation and test mixtures are drawn with.

    Returns
    -------
    TrainConfig
    """
    layers = min(config.sources), max(config.sources)
    return dataclasses.replace(
        profile.train,
        epochs=round(EPOCHS_RATIO * profile.train.epochs),
        output="sigmoid",
        class_weights=False,
        augment=AugmentConfig(mix="layers", share=MIXED_SHARE, layers=layers, level_range_db=config.level_range_db),
    )


def train(
    folder: Path,
    name: str,
    spec: str | tuple[Layer, ...],
    config: TrainConfig,
    *,
    inputs: Inputs,
    seeds: Sequence[int],
    workers: int | None = None,
) -> list[list[Path]]:
    """Train one network from every seed on every split; what is there already is kept.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; see `variants.run_folder`.
    name : str
        What the run folders are called.
    spec, config
        See `train.train_model`.
    inputs : Inputs
        Features and splits.
    seeds : sequence of int
        A network for each.
    workers : int, optional
        Number of processes.

    Returns
    -------
    list of list of Path
        Run folders, first by seed, then by fold.
    """
    tasks = [
        (run_folder(folder, name, fold=fold, seed=seed), inputs.store.folder, split, spec, config, seed)
        for seed in seeds
        for fold, split in enumerate(inputs.splits)
    ]
    made = list(parallel_map(train_model, tasks, workers=workers, describe=f"training {name}", isolate=True))
    return in_parts(made, len(inputs.splits))


def answer(
    folder: Path,
    networks: Sequence[Sequence[Path]],
    inputs: Inputs,
    mixtures: Mixtures,
    store: FeatureStore,
    *,
    workers: int | None = None,
) -> np.ndarray:
    """Let networks that were trained on clips answer mixtures, each those of its own fold.

    Parameters
    ----------
    folder : Path
        Where the answers are kept.
    networks : sequence of sequence of Path
        Run folders, first by seed, then by fold.
    inputs : Inputs
        Features and splits that they were trained with.
    mixtures : Mixtures
        Of these splits.
    store : FeatureStore
        Their features.
    workers : int, optional
        Number of processes.

    Returns
    -------
    np.ndarray [shape=(n_seeds, n_mixtures, n_classes)]
        Probabilities, in the order of the manifest.

    Raises
    ------
    RunError
        When a network was trained with another split or other features.
    LeakError
        When a source of a mixture does not stand in the mixture's part of the split: it may have been trained on.
    """
    sources = mixtures.sources[["mixture", "part", "fold", "clip_id"]]
    tasks = [
        (folder / f"seed-{seed}-fold-{fold}.npz", network, inputs.store.folder, split, store.folder, own)
        for seed, by_fold in enumerate(networks)
        for fold, (network, split) in enumerate(zip(by_fold, inputs.splits, strict=True))
        for own in [sources[sources.fold == fold]]
    ]
    found = iter(list(parallel_map(_answer, tasks, workers=workers, describe="answering mixtures", isolate=True)))
    by_seed = [pd.concat([next(found) for _ in by_fold]) for by_fold in networks]
    return np.stack([one.loc[mixtures.corpus.manifest.clip_id].to_numpy() for one in by_seed])


def polyphonic(corpus: str, data: str, classes: tuple[str, ...]) -> tuple[Corpus | None, str]:
    """Look for real recordings of several instruments that come with a corpus.

    Parameters
    ----------
    corpus, data : str
        Name of the corpus, and its folder ("" for its default place).
    classes : tuple of str
        Classes of the networks; the labels are brought into this order.

    Returns
    -------
    corpus : Corpus or None
    sentence : str
        What was found, or why there is nothing.
    """
    module = import_module(f"instrlib.data.{corpus}")
    if not hasattr(module, "load_test"):
        return None, f"`{corpus}` brings no recordings of several instruments; the mixtures are all there is."
    try:
        found = module.load_test(expanded(data) if data else folders().data / corpus)
        missing = sorted(set(classes) - set(found.classes))
        if missing:
            return None, f"The recordings of several instruments of `{corpus}` have none with {', '.join(missing)}."
        labels = found.labels[:, [found.classes.index(name) for name in classes]]
        kept = np.isfinite(labels).all(axis=1) & (labels == 1).any(axis=1)
        manifest = found.manifest[kept].reset_index(drop=True).assign(label=strata(labels[kept], classes))
        found = dataclasses.replace(found, manifest=manifest, classes=classes, labels=labels[kept])
    except CorpusError as error:
        return None, f"The recordings of several instruments of `{corpus}` cannot be used here: {error}"
    return found, f"`{corpus}` brings {len(manifest):,} recordings of several instruments."


def answer_polyphonic(
    folder: Path, networks: Sequence[Sequence[Path]], inputs: Inputs, store: FeatureStore, *, workers: int | None = None
) -> np.ndarray:
    """Let networks answer real recordings of several instruments; with several folds, those of the first one.

    Parameters
    ----------
    folder : Path
        Where the answers are kept.
    networks, inputs
        See `answer`.
    store : FeatureStore
        Features of the recordings; all are for testing.
    workers : int, optional
        Number of processes.

    Returns
    -------
    np.ndarray [shape=(n_seeds, n_clips, n_classes)]
        Probabilities; clips sorted.
    """
    tasks = [
        (folder / f"polyphonic-seed-{seed}.npz", by_fold[0], inputs.store.folder, inputs.splits[0], store.folder)
        for seed, by_fold in enumerate(networks)
    ]
    return np.stack(list(parallel_map(_answer_polyphonic, tasks, workers=workers, describe="answering", isolate=True)))


def score_polyphonic(
    folder: Path,
    networks: dict[str, Sequence[Sequence[Path]]],
    heard: dict[str, np.ndarray],
    mixtures: Mixtures,
    inputs: Inputs,
    recordings: Corpus | None,
    *,
    root: Path,
) -> pd.DataFrame:
    """Score networks on real recordings of several instruments, with the thresholds that our mixtures gave.

    Parameters
    ----------
    folder : Path
        Where the answers are kept, a folder for each network.
    networks : dict of str to sequence of sequence of Path
        Run folders by name; see `answer`.
    heard : dict of str to np.ndarray
        What the same networks said of the mixtures.
    mixtures, inputs
        See `answer`.
    recordings : Corpus or None
        From `polyphonic`.
    root : Path
        Folder of all feature stores.

    Returns
    -------
    pandas.DataFrame
        As `layered_scores.score_table`, with "all present" and "none present" beside the networks; without a row when
        there are no recordings.
    """
    if recordings is None:
        return pd.DataFrame(columns=["model", "score", "estimate", "low", "high"])
    store = build_store(recordings, inputs.store.config, root=root)
    truth = truth_of_clips(store)
    models = {}
    for name, folders_of in networks.items():
        said = answer_polyphonic(folder / name, folders_of, inputs, store)
        models[name] = Answer(said, decisions(said, choose_thresholds(heard[name], mixtures)[:, 0]))
    return score_table(models | all_or_none(*truth.labels.shape), truth)


def _answer(
    path: Path, network: Path, store_folder: Path, split_path: Path, mixed_folder: Path, sources: pd.DataFrame
) -> pd.DataFrame:
    trained, _, split = open_trained(network, store_folder, split_path)
    crossing = sources[sources.clip_id.map(split.parts) != sources.part]
    if len(crossing):
        one = crossing.iloc[0]
        raise LeakError(
            f"The {one.part} mixture {one.mixture} has {one.clip_id!r} as a source, which stands in the part "
            f"{split.parts.get(one.clip_id, 'of no clip')!r} of {split_path}; draw the mixtures again."
        )
    mixed = open_store(mixed_folder)
    of_fold = Split(sources.drop_duplicates("mixture").set_index("mixture").part, split.seed)
    test = _answer_others(path, network, trained["key"], mixed, of_fold)
    segments = part_segments(mixed, of_fold, "validation")
    validation = predict_clips(_predictor(network), mixed, load_scaler(network), segments)
    return pd.concat([pd.DataFrame(one["probabilities"], index=one["clip_id"]) for one in (validation, test)])


def _answer_polyphonic(path: Path, network: Path, store_folder: Path, split_path: Path, heard: Path) -> np.ndarray:
    trained, _, split = open_trained(network, store_folder, split_path)
    store = open_store(heard)
    everything = Split(pd.Series("test", index=store.clips.clip_id), split.seed)
    return _answer_others(path, network, trained["key"], store, everything)["probabilities"]


def _answer_others(path: Path, network: Path, trained: str, store: FeatureStore, split: Split) -> Predictions:
    """Let a network answer, once, the test part of other clips than those it was trained with."""
    key = hash_json([trained, store.fingerprint, split.fingerprint])
    return answer_test(path, key, partial(_predictor, network), store=store, scaler=load_scaler(network), split=split)


def _predictor(network: Path) -> Callable[[np.ndarray], np.ndarray]:
    return load_model(network)[0].predict_on_batch
