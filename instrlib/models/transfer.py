"""Transfer learning: a frozen embedding with a small head on it, against a network that learns from scratch.

Every model of a comparison gets the same training clips, chooses what it has to choose (the epoch, the penalty) on the
same validation part, and answers the same test part.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.cache import code_hash, versions
from instrlib.core.config import Profile, TrainConfig
from instrlib.core.errors import LeakError
from instrlib.core.io import hash_bytes, hash_json, read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.data import corpora
from instrlib.data.dataset import Corpus
from instrlib.data.inputs import Inputs
from instrlib.data.splits import Split, fingerprint_of, load_split, make_split, save_split, save_splits
from instrlib.data.store import FeatureStore, build_store, derive_store
from instrlib.evaluation.metrics import best_thresholds
from instrlib.evaluation.predictions import Predictions, join_seeds, main_score
from instrlib.evaluation.statistics import compare, score_table
from instrlib.models import embeddings
from instrlib.models.answers import answer_test, read_test
from instrlib.models.heads import HEADS, LOGISTIC, head_loss
from instrlib.models.layers import Layer
from instrlib.models.train import config_for, train_model
from instrlib.models.trained import part_segments
from instrlib.models.variants import Outcome, Variant, read_outcome, run_folder, run_variants
from instrlib.models.vectors import MinMax, VectorStore, statistics, vector_store

SOURCE = "rendered"
"""The corpus that our own embedding is trained on: it needs no download."""

OWN = "our embedding"

SCRATCH = "from scratch"

BASELINE = "compact CNN"
"""The network of notebook 02."""

STATISTICS = "plain statistics"
"""Traditional features under the same head: what is gained beyond them is gained by the pretraining."""

STORED = "stored VGGish"


MARK = f"yamnet, {LOGISTIC}"
"""What everything that is trained here is measured by, where YAMNet is at hand."""


MAX_EPOCHS = 100
"""A network on few clips gets as many steps as on all of them, but never more epochs than this."""

_HEAD = "head.json"

Answers = dict[str, dict[int, Predictions]]
"""Predictions by model and by number of training clips of a class; see `sizes`."""


@dataclass(frozen=True)
class Task:
    """What a network is pretrained on, and what its embedding is moved to.

    Attributes
    ----------
    source : Inputs
        Features and one split to pretrain on.
    target : Inputs
        Features and splits of the clips in question.
    clips : Corpus
        The clips of the target.
    divided : bool
        Whether the two are halves of the classes of one corpus.
    """

    source: Inputs
    target: Inputs
    clips: Corpus
    divided: bool


def prepare(
    clips: Corpus, inputs: Inputs, profile: Profile, *, folder: Path, root: Path, workers: int | None = None
) -> Task:
    """Find something to pretrain on that tells nothing about the clips in question.

    For a corpus of recordings that is all of `rendered`. For `rendered` itself that would be circular: there its
    classes are divided, every second one to pretrain on and the others as the target, which the network never heard.

    Parameters
    ----------
    clips : Corpus
        The study's corpus.
    inputs : Inputs
        Its features and splits.
    profile : Profile
        Decides how large the source is.
    folder : Path
        Where the new splits are written.
    root : Path
        Folder of all feature stores.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Task

    Raises
    ------
    LeakError
        When a group stands in both halves of a divided corpus.
    """
    config = inputs.store.config
    if clips.name != SOURCE:
        source = build_store(corpora.load(SOURCE, profile=profile), config, root=root, workers=workers)
        return Task(_inputs(source, [make_split(source.clips, seed=0)], folder / "source"), inputs, clips, False)
    halves = [_only(clips, clips.classes[start::2]) for start in (0, 1)]
    shared = set(halves[0].manifest.group) & set(halves[1].manifest.group)
    if shared:
        raise LeakError(f"The group {min(shared)!r} holds clips of both halves of the classes; it must be of one.")
    stores = [build_store(half, config, root=root, workers=workers) for half in halves]
    made = [load_split(path, inputs.store.segments) for path in inputs.splits]
    kept = [[_restricted(split, set(store.clips.clip_id)) for split in made] for store in stores]
    return Task(
        _inputs(stores[0], kept[0][:1], folder / "source"),
        _inputs(stores[1], kept[1], folder / "target"),
        halves[1],
        True,
    )


def pretrain(folder: Path, source: Inputs, config: TrainConfig, *, spec: str = "compact", seed: int = 0) -> Path:
    """Train the network that becomes the embedding; one that is there already is kept.

    Parameters
    ----------
    folder : Path
        Its run folder.
    source : Inputs
        See `Task`. Its epoch is chosen on the validation groups; its test part is not read.
    config : TrainConfig
        How it is trained.
    spec : str
        A name of `models.SPECS`.
    seed : int
        See `train.train_model`.

    Returns
    -------
    Path
        `folder`.
    """
    task = (folder, source.store.folder, source.splits[0], spec, config, seed)
    return next(iter(parallel_map(train_model, [task], workers=1, describe="pretraining", isolate=True)))


def embed(task: Task, pretrained: Path, *, root: Path, workers: int | None = None) -> dict[str, VectorStore]:
    """Embed the clips in question by everything that is at hand.

    Parameters
    ----------
    task : Task
        See `prepare`.
    pretrained : Path
        Run folder of our own embedding; see `pretrain`.
    root : Path
        Folder of all feature stores.
    workers : int, optional
        Number of processes.

    Returns
    -------
    dict of str to VectorStore
        `STATISTICS`, `OWN`, the published networks that `embeddings.available` finds and, of `openmic2018`, the
        VGGish features that its publisher stored.
    """
    store = task.target.store
    found = {STATISTICS: statistics(store)}
    for one in (embeddings.own(pretrained, name=OWN), *embeddings.available()):
        made = embeddings.embed_corpus(task.clips, one, root=root, workers=workers)
        found[one.name] = vector_store(store, made["clip_id"], made["mean"])
    if task.clips.name == "openmic2018":
        from instrlib.data import openmic2018

        clip_id = store.clips.clip_id.to_numpy(str)
        windows = openmic2018.vggish_features(task.clips.root, clip_id)
        found[STORED] = vector_store(store, clip_id, windows.mean(axis=1, dtype=np.float32))
    return found


def sizes(inputs: Inputs) -> list[int]:
    """Return the numbers of training clips of a class at which models are compared: 1, 4, 16, ... and all.

    Parameters
    ----------
    inputs : Inputs
        Features and splits.

    Returns
    -------
    list of int
        Powers of four up to three quarters of what a class has on average, and last as many as the largest has: all.
        Where clips have several labels just that, because clips of one class are of others too; a clip then counts for
        the class of its stratum (see `corpora.base.strata`).
    """
    counts = _training_counts(inputs)
    powers = 4 ** np.arange(0 if inputs.store.multilabel else int(counts.max()).bit_length())
    return [*powers[powers <= 0.75 * counts.mean()].tolist(), int(counts.max())]


def clips_a_class(inputs: Inputs, sizes: Sequence[int]) -> dict[int, float]:
    """Say how many training clips of a class each size stands for.

    Parameters
    ----------
    inputs : Inputs
        Features and splits.
    sizes : sequence of int
        See `sizes`.

    Returns
    -------
    dict of int to float
        The sizes themselves, which a class with fewer clips does not reach, and for the last what a class has on
        average over classes and splits.
    """
    return {size: float(size) for size in sizes[:-1]} | {sizes[-1]: float(_training_counts(inputs).mean())}


def draw(clips: pd.DataFrame, size: int, *, seed: int) -> set[str]:
    """Draw training clips: of each class so many, one of every group before a second of any.

    Parameters
    ----------
    clips : pandas.DataFrame
        Columns `clip_id`, `label`, `group`.
    size : int
        Clips of a class; all of one that has fewer.
    seed : int
        Another seed draws others. With the same one a smaller draw lies within a larger.

    Returns
    -------
    set of str
        Their ids.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": list("abcd"), "label": "flute", "group": list("xxxy")})
    >>> "d" in draw(clips, 2, seed=0)
    True
    """
    rank = [hash_bytes(str(seed).encode(), one.encode()) for one in clips.clip_id]
    group_rank = [hash_bytes(str(seed).encode(), one.encode()) for one in clips.group]
    ordered = clips.assign(rank=rank, group_rank=group_rank).sort_values("rank")
    ordered["turn"] = ordered.groupby(["label", "group"]).cumcount()
    ordered = ordered.sort_values(["turn", "group_rank"])
    return set(ordered.clip_id[ordered.groupby("label").cumcount() < size])


def answer_heads(
    folder: Path,
    inputs: Inputs,
    embedded: dict[str, VectorStore],
    *,
    head: str,
    sizes: Sequence[int],
    seeds: Sequence[int],
    workers: int | None = None,
) -> Answers:
    """Fit a head on each embedding, on more and more training clips, and let it answer the test part.

    Parameters
    ----------
    folder : Path
        Where the answers are kept; what is there already is not computed again.
    inputs : Inputs
        Features and splits of the clips.
    embedded : dict of str to VectorStore
        The embeddings of the same clips, by name.
    head : str
        One of `heads.HEADS`.
    sizes : sequence of int
        Training clips of a class; see `sizes`.
    seeds : sequence of int
        Each draws other training clips, and is that of the head.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict
        See `Answers`, by name of the embedding.
    """
    places = [(name, size, seed) for name in embedded for size in sizes for seed in seeds]
    tasks = [
        (_place(folder, f"{name} {head}", size, fold, seed), embedded[name], split, head, size, seed)
        for name, size, seed in places
        for fold, split in enumerate(inputs.splits)
    ]
    found = parallel_map(_answer_head, tasks, workers=workers, describe=head, isolate=True)
    return _collect(places, list(found), len(inputs.splits))


def train_from_scratch(
    folder: Path,
    inputs: Inputs,
    spec: str | tuple[Layer, ...],
    config: TrainConfig,
    *,
    sizes: Sequence[int],
    seeds: Sequence[int],
    workers: int | None = None,
) -> dict[int, Predictions]:
    """Train a network on more and more training clips, the same that the heads get, and let it answer the test part.

    With fewer clips an epoch has fewer steps; it gets as many more epochs, and as much more patience, as bring it to
    the number of steps that it takes on all clips (up to `MAX_EPOCHS`). Otherwise it would lose for want of steps.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; a training that is there already is kept.
    inputs : Inputs
        Features and splits.
    spec, config
        See `train.train_model`.
    sizes, seeds, workers
        See `answer_heads`.

    Returns
    -------
    dict of int to dict
        See `evaluation.Predictions`, by size.
    """
    config = config_for(inputs.store, config)
    # The most expensive, those on all clips, come first so that the processes end together.
    places = [(SCRATCH, size, seed) for size in sorted(sizes, reverse=True) for seed in seeds]
    tasks = [
        (_place(folder, SCRATCH, size, fold, seed), inputs.store, split, spec, config, size, seed)
        for _, size, seed in places
        for fold, split in enumerate(inputs.splits)
    ]
    found = parallel_map(_train_on_draw, tasks, workers=workers, describe="training from scratch", isolate=True)
    return _collect(places, list(found), len(inputs.splits))[SCRATCH]


def baseline(
    task: Task, folder: Path, trained: Path, config: TrainConfig, *, seeds: Sequence[int], workers: int | None = None
) -> Outcome:
    """Return the network of notebook 02 on all training clips of the target.

    Parameters
    ----------
    task : Task
        See `prepare`. Where the classes are divided it is trained anew, on the target's classes alone.
    folder : Path
        Run folders are made in it.
    trained : Path
        Folder of notebook 02.
    config : TrainConfig
        Of notebook 02.
    seeds : sequence of int
        A network for each.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Outcome
    """
    store, splits = task.target.store.folder, task.target.splits
    if task.divided:
        variant = Variant(BASELINE, "compact", config_for(task.target.store, config), store)
        return run_variants(folder, [variant], splits=splits, seeds=seeds, workers=workers)[BASELINE]
    places = [[run_folder(trained, BASELINE, fold=fold, seed=seed) for fold in range(len(splits))] for seed in seeds]
    return read_outcome(places, store=store, splits=splits, workers=workers)


def scaled_epochs(config: TrainConfig, n_all: int, n_drawn: int) -> TrainConfig:
    """Return the settings for fewer training segments: as many steps in all, in more epochs.

    Parameters
    ----------
    config : TrainConfig
        The settings for all segments.
    n_all, n_drawn : int
        Number of training segments, all and drawn.

    Returns
    -------
    TrainConfig

    Examples
    --------
    >>> scaled_epochs(TrainConfig(epochs=10, patience=5, batch_size=16), 160, 16).epochs
    100
    """
    steps_all, steps = (max(1, n // config.batch_size) for n in (n_all, n_drawn))
    factor = min(steps_all / steps, max(1.0, MAX_EPOCHS / config.epochs))
    more = {name: math.ceil(factor * (getattr(config, name) or 0)) or None for name in ("epochs", "patience")}
    return dataclasses.replace(config, **more)


def curve(answers: Answers, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score every model at every size.

    Parameters
    ----------
    answers : dict
        See `Answers`.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `size`, `score`, `estimate`, `low`, `high`; see `statistics.score_table`.
    """
    flat, names = _flatten(answers)
    table = score_table(flat, n_resamples=n_resamples, seed=seed)
    table.insert(1, "size", [names[name][1] for name in table.model])
    return table.assign(model=[names[name][0] for name in table.model])


def main_curve(answers: Answers, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `curve` of the main score alone, without its name; see `predictions.main_score`."""
    score = main_score(next(iter(next(iter(answers.values())).values())))
    return table[table.score == score].drop(columns="score").reset_index(drop=True)


def against_scratch(answers: Answers, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Compare each embedding with the network from scratch at each size, paired by clip and seed.

    Parameters
    ----------
    answers : dict
        See `Answers`; one of the models is `SCRATCH`.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        One row for each pair of `model` and `size`: `difference` of the main score, embedding minus scratch,
        `low`, `high`, `p` and `p_holm`, corrected for the number of all rows; see `statistics.compare`.
    """
    flat, names = _flatten(answers)
    key_of = {pair: key for key, pair in names.items()}
    pairs = [(key, key_of[SCRATCH, size]) for key, (model, size) in names.items() if model != SCRATCH]
    table = compare(flat, pairs=pairs, n_resamples=n_resamples, seed=seed).droplevel("second")
    table.index = pd.MultiIndex.from_tuples([names[key] for key in table.index], names=["model", "size"])
    return table.reset_index()


def against_mark(
    answers: dict[str, Predictions], embedded: Sequence[str], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Compare what was trained here with `MARK`, paired by clip and seed.

    Parameters
    ----------
    answers : dict of str to dict
        Predictions by name; those of heads are called "<embedding>, <head>".
    embedded : sequence of str
        Names of the embeddings; all but `STATISTICS` and `OWN` were trained by others, and are left out.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        See `statistics.compare`; empty when the mark is not among the answers.
    """
    if MARK not in answers:
        return pd.DataFrame(columns=["difference", "low", "high", "p", "p_holm"], dtype=float)
    elsewhere = tuple(f"{name}, " for name in embedded if name not in (STATISTICS, OWN))
    here = {name: answer for name, answer in answers.items() if name == MARK or not name.startswith(elsewhere)}
    return compare(here, against=MARK, n_resamples=n_resamples, seed=seed).droplevel("second")


def describe_heads(
    folder: Path,
    inputs: Inputs,
    embedded: Sequence[str],
    *,
    head: str,
    sizes: Sequence[int],
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Say what was chosen for each head on validation, and how long it took: the mean over seeds and folds.

    Parameters
    ----------
    folder, inputs, head, sizes, seeds
        As given to `answer_heads`.
    embedded : sequence of str
        Names of the embeddings.

    Returns
    -------
    pandas.DataFrame
        One row for each `model` and `size`: `dimensions`, `training_clips`, `validation_clips`, `validation_loss`,
        `chosen` (the commonest C, or the mean of the best epochs) and `training_s`.
    """
    rows = []
    for name in embedded:
        for size in sizes:
            kept = pd.DataFrame(
                read_json(_place(folder, f"{name} {head}", size, fold, seed) / _HEAD)
                for seed in seeds
                for fold in range(len(inputs.splits))
            )
            chosen = kept.chosen.mode().iloc[0] if head == LOGISTIC else kept.chosen.mean()
            means = kept[["dimensions", "training_clips", "validation_clips", "validation_loss", "training_s"]].mean()
            rows.append({"model": name, "size": size, **means, "chosen": chosen})
    return pd.DataFrame(rows)


def _only(clips: Corpus, classes: Sequence[str]) -> Corpus:
    kept = clips.manifest[clips.manifest.label.isin(classes)].reset_index(drop=True)
    return dataclasses.replace(clips, manifest=kept, classes=tuple(classes))


def _restricted(split: Split, clip_ids: set[str]) -> Split:
    return Split(split.parts[split.parts.index.isin(clip_ids)], split.seed)


def _inputs(store: FeatureStore, splits: Sequence[Split], folder: Path) -> Inputs:
    return Inputs(store, tuple(save_splits(splits, folder)), fingerprint_of(splits))


def _part(store: FeatureStore, split_path: Path, part: str) -> pd.DataFrame:
    """Return the clips of a part of a split, one row each."""
    return part_segments(store, load_split(split_path, store.segments), part).drop_duplicates("clip_id")


def _training_counts(inputs: Inputs) -> np.ndarray:
    """Return how many training clips each class has in each split."""
    counts = [_part(inputs.store, path, "train").label.value_counts().to_numpy() for path in inputs.splits]
    return np.concatenate(counts)


def _place(folder: Path, name: str, size: int, fold: int, seed: int) -> Path:
    return run_folder(folder, f"{name} {size}", fold=fold, seed=seed)


def _collect(places: Sequence[tuple[str, int, int]], found: Sequence[Predictions], n_folds: int) -> Answers:
    """Join the folds and the seeds of answers that come place by place, fold by fold."""
    by_seed: dict[tuple[str, int], list[Sequence[Predictions]]] = {}
    for number, (name, size, _) in enumerate(places):
        by_seed.setdefault((name, size), []).append(found[number * n_folds : (number + 1) * n_folds])
    answers: Answers = {}
    for name, size in sorted(by_seed, key=lambda pair: pair[1]):
        answers.setdefault(name, {})[size] = join_seeds(by_seed[name, size])
    return answers


def _flatten(answers: Answers) -> tuple[dict[str, Predictions], dict[str, tuple[str, int]]]:
    """Return the predictions by one name each, and what the names stand for."""
    names = {f"{model}, {size}": (model, size) for model, by_size in answers.items() for size in by_size}
    return {key: answers[model][size] for key, (model, size) in names.items()}, names


def _drawn(store: FeatureStore, split_path: Path, size: int, seed: int) -> tuple[Split, Split]:
    """Return the split, and the same without the training clips that are not drawn; one object when all are."""
    split = load_split(split_path, store.segments)
    train = part_segments(store, split, "train").drop_duplicates("clip_id")
    kept = set(train.clip_id) if store.multilabel else draw(train, size, seed=seed)
    dropped = set(train.clip_id) - kept
    return split, _restricted(split, set(split.parts.index) - dropped) if dropped else split


def _train_on_draw(
    folder: Path,
    store: FeatureStore,
    split_path: Path,
    spec: str | tuple[Layer, ...],
    config: TrainConfig,
    size: int,
    seed: int,
) -> Predictions:
    split, drawn = _drawn(store, split_path, size, seed)
    if drawn is split:
        return read_test(train_model(folder, store.folder, split_path, spec, config, seed), store.folder, split_path)
    n_all = len(part_segments(store, split, "train"))
    kept = set(drawn.parts.index)

    def leave_out(segments: pd.DataFrame) -> pd.DataFrame:
        return segments.assign(usable=segments.usable & segments.clip_id.isin(kept))

    fewer = derive_store(store, leave_out, mark=f"only {hash_json(sorted(kept))}")
    path = folder.with_name(f"{folder.name}.split.json")
    save_split(drawn, path)
    n_drawn = len(part_segments(fewer, drawn, "train"))
    changed = scaled_epochs(config, n_all, n_drawn)
    return read_test(train_model(folder, fewer.folder, path, spec, changed, seed), fewer.folder, path)


def _answer_head(folder: Path, store: VectorStore, split_path: Path, head: str, size: int, seed: int) -> Predictions:
    _, split = _drawn(store, split_path, size, seed)
    clips = store.segments[store.segments.clip_id.isin(split.parts.index)].reset_index(drop=True)
    drawn = dataclasses.replace(store, segments=clips)
    key = hash_json(
        {
            "code": code_hash("models"),
            "inputs": [store.fingerprint, split.fingerprint],
            "settings": [head, seed],
            "versions": versions(),
        }
    )
    train, validation = (part_segments(drawn, split, part) for part in ("train", "validation"))
    scaler = MinMax.fit(store.read(train.row.to_numpy()))
    record = folder / _HEAD

    @functools.cache
    def fit() -> Callable[[np.ndarray], np.ndarray]:
        began = time.monotonic()
        known, held_out = (
            (drawn.read(part.row.to_numpy(), scaler), drawn.label_matrix(part)) for part in (train, validation)
        )
        predict, chosen = HEADS[head](*known, *held_out, several=store.multilabel, seed=seed)
        answered = predict(held_out[0])
        made = {
            "key": key,
            "dimensions": store.vectors.shape[1],
            "training_clips": len(train),
            "validation_clips": len(validation),
            "validation_loss": head_loss(held_out[1], answered, several=store.multilabel),
            "chosen": chosen,
            "training_s": round(time.monotonic() - began, 3),
            "thresholds": best_thresholds(held_out[1], answered)[0] if store.multilabel else None,
        }
        write_json(record, made)
        return predict

    if not (record.is_file() and read_json(record)["key"] == key):
        fit()
    thresholds = np.array(read_json(record)["thresholds"]) if store.multilabel else None
    kept = {"store": drawn, "scaler": scaler, "split": split, "thresholds": thresholds}
    return answer_test(folder / "predictions.npz", key, fit, **kept)
