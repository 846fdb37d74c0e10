"""Networks for several instruments: their training, and predictions for mixtures and soundscapes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.cache import cached, key
from instrlib.core.config import AugmentConfig, Profile, TrainConfig
from instrlib.core.io import LeakError, hash_file
from instrlib.core.parallel import parallel_map
from instrlib.data.splits import Split
from instrlib.data.store import FeatureStore, Inputs, open_store
from instrlib.evaluation.metrics import best_thresholds
from instrlib.evaluation.predictions import Predictions
from instrlib.models.published import Network, Windows, window_scores
from instrlib.models.trained import load_model, load_scaler, open_trained, predict_clips
from instrlib.studies.mixtures import MixtureConfig, Mixtures


def recipe(profile: Profile, config: MixtureConfig) -> TrainConfig:
    """Return the training settings for mixtures: the baseline with 1.5 times the epochs and sigmoid outputs.

    60 % of the batches are mixed. Both numbers were chosen on the validation mixtures of the quick study.
    """
    layers = min(config.sources), max(config.sources)
    return replace(
        profile.train,
        epochs=round(1.5 * profile.train.epochs),
        output="sigmoid",
        class_weights=False,
        augment=AugmentConfig(mix="layers", share=0.6, layers=layers, level_range_db=config.level_range_db),
    )


def predict(
    path: Path,
    networks: Sequence[Sequence[Path]],
    inputs: Inputs,
    mixtures: Mixtures,
    store: FeatureStore,
    *,
    workers: int | None = None,
) -> np.ndarray:
    """Return predicted probabilities of mixtures [n_seeds, n_mixtures, n_classes] by the networks of their folds.

    `networks` are run folders by seed and fold, trained on `inputs`; `store` has the features of the mixtures; `path`
    is an npz cache. A mixture with a source in another part of the split raises `LeakError`.
    """
    sources = mixtures.sources[["mixture", "part", "fold", "clip_id"]]

    def make() -> dict[str, np.ndarray]:
        tasks = [
            (network, inputs.store.folder, split, store.folder, sources[sources.fold == fold])
            for by_fold in networks
            for fold, (network, split) in enumerate(zip(by_fold, inputs.splits, strict=True))
        ]
        found = iter(list(parallel_map(_predict, tasks, workers=workers, describe="predicting", isolate=True)))
        by_seed = [pd.concat([next(found) for _ in by_fold]) for by_fold in networks]
        return {"probabilities": np.stack([one.loc[mixtures.corpus.manifest.clip_id] for one in by_seed])}

    trained = [hash_file(folder / "manifest.json") for by_fold in networks for folder in by_fold]
    made_of = {"trained": trained, "mixtures": mixtures.corpus.fingerprint, "split": inputs.fingerprint}
    return cached(path, key("studies", store=store.fingerprint, **made_of), make)["probabilities"]


def _predict(network: Path, store_folder: Path, split_path: Path, mixed: Path, sources: pd.DataFrame) -> pd.DataFrame:
    split = open_trained(network, store_folder, split_path)[2]
    crossing = sources[sources.clip_id.map(split.parts) != sources.part]
    if len(crossing):
        one = crossing.iloc[0]
        raise LeakError(
            f"The {one.part} mixture {one.mixture} contains {one.clip_id!r} of the "
            f"{split.parts.get(one.clip_id, 'unknown')} part of {split_path}; draw the mixtures again."
        )
    store = open_store(mixed)
    segments = store.segments[store.segments.clip_id.isin(sources.mixture)]
    model = load_model(network)[0].predict_on_batch
    found = predict_clips(model, store, load_scaler(network), segments)
    return pd.DataFrame(found["probabilities"], index=found["clip_id"])


def predictions(
    mixtures: Mixtures, probabilities: np.ndarray, part: str, *, threshold: float | None = None
) -> Predictions:
    """Return the "validation" or "test" predictions for `evaluation.statistics`.

    `probabilities` [n_seeds, n_mixtures, n_classes] are those of all mixtures. An instrument counts as present from
    `threshold` on; the default is, for each seed, fold and class, the one with the best F1 on the validation mixtures.
    """
    table, labels, rows = mixtures.corpus.manifest, mixtures.corpus.labels, mixtures.rows(part)
    thresholds = np.full(probabilities.shape, threshold if threshold is not None else np.nan)
    for fold in table.fold.unique() if threshold is None else ():
        of_fold = table.fold == fold
        known = np.flatnonzero(of_fold & (table.split == "validation"))
        for seed, answers in enumerate(probabilities):
            thresholds[seed, of_fold] = best_thresholds(labels[known], answers[known])[0]
    return {
        "clip_id": table.clip_id.to_numpy(str)[rows],
        "group": mixtures.groups()[rows],
        "targets": mixtures.corpus.targets[rows],
        "labels": labels[rows],
        "probabilities": probabilities[:, rows],
        "thresholds": thresholds[:, rows],
    }


def predict_windows(
    path: Path,
    network: Network,
    soundscapes: Mixtures,
    split: Split,
    *,
    trained_on: str,
    window_s: float,
    hop_s: float = 1.0,
) -> list[Windows]:
    """Return the predictions of a released network for windows of each soundscape, in manifest order.

    `path` is an npz cache, `split` that of the soundscapes, `trained_on` the fingerprint of that of the network.
    Different splits raise `LeakError`, because clips of a soundscape may be training clips.
    """
    crossing = soundscapes.sources[soundscapes.sources.clip_id.map(split.parts) != soundscapes.sources.part]
    if trained_on != split.fingerprint or len(crossing):
        one = (crossing if len(crossing) else soundscapes.sources).iloc[0]
        raise LeakError(
            f"The network may have been trained on {one.clip_id!r}, which {one.mixture} of the {one.part} part plays: "
            "it was trained with another split; compose the soundscapes with its own."
        )

    def make() -> dict[str, np.ndarray]:
        tasks = [
            (soundscapes.corpus.root / file, network, hop_s, window_s) for file in soundscapes.corpus.manifest.path
        ]
        heard = list(parallel_map(_windows, tasks, describe="predicting"))
        stacked = {name: np.concatenate([getattr(one, name) for one in heard]) for name in ("start_s", "probabilities")}
        return {"n": np.array([len(one.start_s) for one in heard])} | stacked

    settings = {"features": network.features, "temperature": network.temperature, "output": network.output}
    made_of = {"network": hash_file(network.file), "soundscapes": soundscapes.corpus.fingerprint, "window_s": window_s}
    kept = cached(path, key("studies", hop_s=hop_s, **settings, **made_of), make)
    ends = np.cumsum(kept["n"])[:-1]
    parts = zip(np.split(kept["start_s"], ends), np.split(kept["probabilities"], ends), strict=True)
    return [Windows(starts, window_s, probabilities) for starts, probabilities in parts]


def _windows(file: Path, network: Network, hop_s: float, window_s: float) -> Windows:
    return window_scores(file, network, hop_s=hop_s, window_s=window_s)
