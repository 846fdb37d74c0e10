"""Trained on one domain, tested on another: how far scores fall, why, and what unlabelled clips of the other mend.

One rule for all tests: the networks of a domain answer its own test part, and every clip of any other domain, since
they have learned from none of them. Nothing is chosen on what they are tested on.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.core.cache import cached, code_hash, versions
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.errors import EvaluationError
from instrlib.core.io import hash_json, read_json
from instrlib.core.parallel import parallel_map
from instrlib.data.dataset import draw_clips
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.evaluation import statistics
from instrlib.evaluation.intervals import Interval, balanced_difference, bootstrap_mean, compare_over_seeds
from instrlib.evaluation.predictions import Predictions
from instrlib.evaluation.statistics import enough_resamples, holm
from instrlib.models.answers import answer_test
from instrlib.models.embeddings import embed_store, own
from instrlib.models.layers import Layer
from instrlib.models.trained import load_model, load_scaler, read_manifest
from instrlib.models.variants import Outcome, Variant, run_variants
from instrlib.studies.domains import Common, Domain, in_common, pairs
from instrlib.studies.saliency import cell_grid, class_activation_maps, last_picture_layer, overlay_arrays, upsample

if TYPE_CHECKING:
    import keras

CLIPS_PER_CLASS = {"smoke": 12, "quick": 40, "full": 150}
"""Cap for all domains but the study's own, by profile."""

_QUESTIONS = ("domain", "class, from another domain", "class, from the same domain")
_BATCH = 128
_MEASURED = 1000  # segments: each has hundreds of places in every channel, and all have to be in memory
_PERPLEXITY = 30.0
_FOLDS = 5


@dataclass(frozen=True)
class Answered:
    """What the networks of one domain said of the clips of another, or of its own test part.

    Attributes
    ----------
    source, target : Domain
        Trained on, tested on.
    common : Common
        Their classes in common.
    runs : tuple of Path
        Run folders of the networks: every seed of every fold.
    predictions : dict
        `targets` are classes of the target, `probabilities` [shape=(n_networks, n_clips, n_classes)] those of all
        classes of the source. Of a domain's own test part the first axis is seeds alone, the folds joined.
    adapted : dict, optional
        The same by copies of the networks that were adapted to the target's clips; see `adapt_batch_norm`. None of a
        domain's own test part.
    """

    source: Domain
    target: Domain
    common: Common
    runs: tuple[Path, ...]
    predictions: Predictions
    adapted: Predictions | None = None


@dataclass(frozen=True)
class Embedded:
    """Clips of several domains as one network sees them.

    Attributes
    ----------
    clips : pandas.DataFrame
        `clip_id`, `domain` (its label), `name` (common name of the class), `group` (one of its own in each domain),
        and `x` and `y` on the map.
    vectors : np.ndarray [shape=(n_clips, dimension), float32]
        What the network's last layer weighs, the mean over the segments of a clip.
    perplexity : float
        Of the map: about how many neighbours count.
    """

    clips: pd.DataFrame
    vectors: np.ndarray
    perplexity: float


# -- training and answers ----------------------------------------------------------------------------------------------


def train(
    folder: Path,
    domains: Sequence[Domain],
    spec: str | tuple[Layer, ...],
    config: TrainConfig,
    *,
    seeds: Sequence[int],
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Train one network for each domain, seed and fold, on its own training part, its epoch by its own validation part.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; what is there already is kept.
    domains : sequence of Domain
        From `domains.at_hand`; those without a split are passed over.
    spec, config
        The network and how it is trained, the same for all.
    seeds : sequence of int
        A network for each.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict of str to Outcome
        By the domains' names: the networks, and what they said of their own test part.
    """
    variants = [
        Variant(domain.name, spec, config, domain.store.folder, splits=domain.splits)
        for domain in domains
        if domain.splits
    ]
    return run_variants(folder, variants, splits=(), seeds=seeds, workers=workers)


def answer(
    folder: Path, domains: Sequence[Domain], outcomes: dict[str, Outcome], *, workers: int | None = None
) -> list[Answered]:
    """Let the networks of each domain answer all clips of every other, as they are and adapted to these clips.

    Parameters
    ----------
    folder : Path
        Where the answers are kept: asked again, nothing is computed.
    domains : sequence of Domain
        From `domains.at_hand`.
    outcomes : dict of str to Outcome
        From `train`.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    list of Answered
        Every domain that was trained on with itself, then with the others, in the order of `domains`.
    """
    asked, _ = pairs(domains)
    targets = {source.name: [target for one, target in asked if one.name == source.name] for source in domains}
    trained = [domain for domain in domains if domain.name in outcomes]
    tasks = [
        (folder / "answers" / run.relative_to(run.parents[2]), run, [(one.name, one.store.folder) for one in others])
        for source in trained
        if (others := targets[source.name])
        for run in outcomes[source.name].flat
    ]
    said = dict(
        zip(
            [run for _, run, _ in tasks],
            parallel_map(_answer_all, tasks, workers=workers, describe="other domains", isolate=True),
            strict=True,
        )
    )
    found = []
    for source in trained:
        outcome = outcomes[source.name]
        runs = tuple(outcome.flat)
        found.append(Answered(source, source, in_common(source, source), runs, outcome.predictions))
        for target in targets[source.name]:
            plain, adapted = (_stacked([said[run][target.name][way] for run in runs]) for way in range(2))
            found.append(Answered(source, target, in_common(source, target), runs, plain, adapted))
    return found


def adapt_batch_norm(folder: Path, store: FeatureStore, rows: np.ndarray) -> "keras.Model":
    """Copy a network with the means and variances of its batch normalisation estimated on other clips, unlabelled.

    Layer by layer from the input: what comes into each normalisation is measured over the segments, with the layers
    before it adapted already. Weights stay as they are, and so does the scaling of the input. The adapted network has
    seen the target's sound, though no label of it; its scores stand apart from those of a network that has not.

    Parameters
    ----------
    folder : Path
        Run folder of `train.train_model`; it is not changed.
    store : FeatureStore
        Features of the target, of the settings that the network was trained with.
    rows : np.ndarray of int [shape=(n,)]
        Values of the column `row`: the segments that are measured; of more than `_MEASURED` so many, spread evenly.

    Returns
    -------
    keras.Model

    Raises
    ------
    EvaluationError
        When there is no segment.

    References
    ----------
    .. [1] Y. Li, N. Wang, J. Shi, J. Liu, X. Hou, "Revisiting batch normalization for practical domain adaptation",
       2016. arXiv:1603.04779
    """
    if not len(rows):
        raise EvaluationError("Batch normalisation cannot be adapted to no clips at all.")
    model, scaler = load_model(folder)
    spread = np.linspace(0, len(rows) - 1, min(len(rows), _MEASURED)).round().astype(int)
    measured = np.asarray(rows)[spread]
    blocks = [store.read(block, scaler) for block in np.array_split(measured, -(-len(measured) // _BATCH))]
    for layer in model.layers[1:]:
        if type(layer).__name__ == "BatchNormalization":
            values = [np.asarray(block, dtype=np.float64).reshape(-1, block.shape[-1]) for block in blocks]
            n = sum(map(len, values))
            mean = sum(one.sum(axis=0) for one in values) / n
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(sum(np.square(one - mean).sum(axis=0) for one in values) / n)
        blocks = [layer(block) for block in blocks]
    return model


# -- scores ------------------------------------------------------------------------------------------------------------


def matrix(answered: Sequence[Answered], *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Score every pair of domains, and tell how far the score falls from the source's own test part.

    An answer is right when it has the common name of the clip's class. A clip whose class the source does not know is
    not asked for here. Classes weigh alike, for two corpora seldom have the same shares of them.

    Parameters
    ----------
    answered : sequence of Answered
        From `answer`.
    n_resamples, seed : int
        Of the bootstrap over groups; there are more resamples where the number of pairs asks for it.

    Returns
    -------
    pandas.DataFrame
        One row a pair: `trained_on`, `tested_on` (labels), `n_common` classes, `n_clips` and `n_groups` that are
        tested; `balanced_accuracy` and `accuracy` among all classes of the source and `among_common`, balanced
        accuracy when it may answer only the classes in common, each with its ends `_low` and `_high` over the target's
        groups and the networks; `constant`, the balanced accuracy of always answering one of the common classes, and
        `chance`, that of guessing among all classes of the source; `majority`, the accuracy of always answering the
        commonest class of the source's training part. Then, where the two differ: `own`, the balanced accuracy on the
        same classes in the source's own test part, and `drop`, that minus `balanced_accuracy`, with `drop_low`,
        `drop_high`, `p` and `p_holm`, which is corrected for the number of pairs. The drop is of the mean over the
        networks: its interval covers the choice of groups on both sides, not that of seeds.
    """
    of_itself = {one.source.name: one for one in answered if one.source.name == one.target.name}
    n_pairs = len(answered) - len(of_itself)
    draws = {"n_resamples": enough_resamples(n_resamples, max(n_pairs, 1)), "seed": seed}
    rows = []
    for one in answered:
        told = in_common_classes(one.predictions, one.common)
        n_names = len(one.common.names)
        among = {"all": told, "common": told | {"probabilities": _only(told["probabilities"], n_names)}}
        table = statistics.score_table(among, **draws).set_index(["model", "score"])
        row: dict[str, Any] = {
            "trained_on": one.source.label,
            "tested_on": one.target.label,
            "n_common": n_names,
            "n_clips": len(told["clip_id"]),
            "n_groups": len(np.unique(told["group"])),
        }
        for name, place in (
            ("balanced_accuracy", ("all", "balanced_accuracy")),
            ("accuracy", ("all", "accuracy")),
            ("among_common", ("common", "balanced_accuracy")),
        ):
            found = table.loc[place]
            row |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
        row |= {
            "constant": 1 / len(np.unique(told["targets"])),
            "chance": 1 / one.predictions["probabilities"].shape[-1],
            "majority": float(np.mean(told["targets"] == one.common.of_source[_commonest(one.source)])),
        }
        if one.source.name != one.target.name:
            row |= _drop(one, of_itself[one.source.name], draws)
        rows.append(row)
    table = pd.DataFrame(rows)
    if "p" not in table:
        return table.assign(own=np.nan, drop=np.nan, drop_low=np.nan, drop_high=np.nan, p=np.nan, p_holm=np.nan)
    return table.assign(p_holm=holm(table.p.to_numpy()))


def adaptation(answered: Sequence[Answered], *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Compare each network with its copy that was adapted to the target's clips, paired by network and clip.

    Parameters
    ----------
    answered : sequence of Answered
        From `answer`.
    n_resamples, seed : int
        Of the bootstrap over groups and networks.

    Returns
    -------
    pandas.DataFrame
        One row a pair of different domains: `trained_on`, `tested_on`, `as_trained` and `adapted` (balanced accuracy
        among all classes of the source), `difference`, adapted minus as trained, `low`, `high`, `p` and `p_holm`,
        which is corrected for the number of pairs.
    """
    asked = [one for one in answered if one.adapted is not None]
    draws = {"n_resamples": enough_resamples(n_resamples, max(len(asked), 1)), "seed": seed}
    rows = []
    for one in asked:
        plain, adapted = (in_common_classes(said, one.common) for said in (one.predictions, one.adapted))
        before, after = _class_weighted(plain), _class_weighted(adapted)
        found = compare_over_seeds(after, before, plain["group"], **draws)
        rows.append(
            {
                "trained_on": one.source.label,
                "tested_on": one.target.label,
                "as_trained": before.mean(),
                "adapted": after.mean(),
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
                "p": found.p,
            }
        )
    columns = ["trained_on", "tested_on", "as_trained", "adapted", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table.p.to_numpy(float)))


def matrix_arrays(table: pd.DataFrame, score: str = "balanced_accuracy") -> dict[str, Any]:
    """Arrange the table of `matrix` for `plots.domain_matrix`.

    Parameters
    ----------
    table : pandas.DataFrame
        From `matrix`.
    score : {"balanced_accuracy", "accuracy", "among_common"}
        Which score.

    Returns
    -------
    dict
        The figure's arguments; NaN, and 0 classes, for a pair that is not compared.
    """
    sources = list(dict.fromkeys(table.trained_on))
    targets = [*sources, *(name for name in dict.fromkeys(table.tested_on) if name not in sources)]
    cells = table.set_index(["trained_on", "tested_on"])

    def grid(column: str) -> np.ndarray:
        every = pd.MultiIndex.from_product([sources, targets])
        return cells[column].reindex(every).to_numpy(float).reshape(len(sources), len(targets))

    return {
        "sources": sources,
        "targets": targets,
        "scores": grid(score),
        "low": grid(f"{score}_low"),
        "high": grid(f"{score}_high"),
        "n_common": np.nan_to_num(grid("n_common")).astype(int),
        "constant": grid("constant"),
        "metric": score,
    }


def in_common_classes(predictions: Predictions, common: Common) -> Predictions:
    """Bring answers to the classes in common.

    Parameters
    ----------
    predictions : dict
        `targets` are classes of the target, `probabilities` those of the source.
    common : Common
        What they have in common.

    Returns
    -------
    dict
        The clips of these classes alone. `targets` are places in `common.names`; `probabilities` has a column for
        each of these names, the sum over the source's classes that are one there, then one for each other class of
        the source.
    """
    targets = common.of_target[predictions["targets"]]
    known = targets >= 0
    n_names, others = len(common.names), np.flatnonzero(common.of_source < 0)
    column = common.of_source.copy()
    column[others] = n_names + np.arange(len(others))
    joined = np.eye(n_names + len(others))[column]
    return {
        "clip_id": predictions["clip_id"][known],
        "group": predictions["group"][known],
        "targets": targets[known],
        "probabilities": np.asarray(predictions["probabilities"], float)[..., known, :] @ joined,
    }


# -- embeddings --------------------------------------------------------------------------------------------------------


def embeddings(
    folder: Path,
    domains: Sequence[Domain],
    network: Path,
    *,
    source: str,
    per_class: int,
    root: Path,
    seed: int = 0,
    workers: int | None = None,
) -> Embedded:
    """Embed clips of all domains by one network, and draw a map of them on which neighbours stay together (t-SNE).

    Only classes that two domains or more have, by their common names. Of the domain that the network was trained on
    only clips of its test part, and none of others that share a soundfont with it: what it learned from would lie
    apart.

    Parameters
    ----------
    folder : Path
        Where the map is kept.
    domains : sequence of Domain
        From `domains.at_hand`.
    network : Path
        Run folder of `train.train_model`, trained on the first split of the domain `source`.
    source : str
        Name of that domain.
    per_class : int
        At most so many clips of each class of each domain, of as many groups as can be.
    root : Path
        Folder of all feature stores, beside which the vectors are kept.
    seed : int
        Of the draw and of the map.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Embedded

    References
    ----------
    .. [1] L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", Journal of Machine Learning Research 9, 2008.
    """
    fonts = next(domain.fonts for domain in domains if domain.name == source)
    domains = [domain for domain in domains if domain.name == source or not domain.fonts & fonts]
    spread = pd.Series([name for domain in domains for name in set(domain.common.values())]).value_counts()
    shared = set(spread.index[spread >= min(2, len(domains))])
    tables, vectors = [], []
    for domain in domains:
        clips = domain.store.clips.assign(name=lambda table, one=domain: table.label.map(one.common))
        if domain.name == source:
            clips = clips[clips.clip_id.map(load_split(domain.splits[0], domain.store.segments).parts) == "test"]
        drawn = draw_clips(clips[clips.name.isin(shared)].assign(label=lambda table: table.name), per_class, seed=seed)
        seen = embed_store(domain.store, own(network), root=root, workers=workers)
        place = pd.Series(np.arange(len(seen["clip_id"])), seen["clip_id"])
        vectors.append(seen["mean"][place[drawn.clip_id].to_numpy()])
        group = [f"{domain.name}: {name}" for name in drawn.group]
        tables.append(drawn[["clip_id", "name"]].assign(domain=domain.label, group=group))
    whole, table = np.concatenate(vectors), pd.concat(tables, ignore_index=True)
    perplexity = min(_PERPLEXITY, max(1.0, (len(whole) - 1) / 3))
    key = hash_json([versions(), table.to_dict("list"), read_manifest(network)["key"], perplexity, seed])
    drawn = cached(folder / "map.npz", key, functools.partial(_map, whole, perplexity, seed))
    return Embedded(table.assign(x=drawn["places"][:, 0], y=drawn["places"][:, 1]), whole, perplexity)


def told_by_embedding(embedded: Embedded, *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Say how well embeddings tell the domain apart, and the class across domains, in numbers beside the map.

    Only classes that all domains have count, so that no domain is known by its instruments.

    Parameters
    ----------
    embedded : Embedded
        From `embeddings`.
    n_resamples, seed : int
        Of the bootstrap over groups; the seed also deals the groups into folds.

    Returns
    -------
    pandas.DataFrame
        Indexed by `question`: `estimate`, `low`, `high` (share of clips), `trivial` (the share that knowing nothing
        gives) and `n_clips`. "domain": a logistic regression names the domain of clips whose groups it has not seen,
        against the share of the commonest domain. "class, from another domain": the nearest clip (by cosine) of any
        other domain is of the same class; "class, from the same domain": the nearest clip of another group of its
        own; both against guessing among the classes.

        Numbers are NaN, and of no clips, where there are fewer than two domains or classes that all of them have.
    """
    clips = embedded.clips
    n_domains = clips.domain.nunique()
    everywhere = clips.groupby("name").domain.nunique() == n_domains
    kept = clips.name.map(everywhere).to_numpy(bool)
    names = clips.name[kept].unique()
    if n_domains < 2 or len(names) < 2:
        nothing = {"estimate": np.nan, "low": np.nan, "high": np.nan, "trivial": np.nan, "n_clips": 0}
        return pd.DataFrame([nothing] * len(_QUESTIONS), pd.Index(_QUESTIONS, name="question"))
    clips, vectors = clips[kept].reset_index(drop=True), embedded.vectors[kept].astype(float)
    groups, domain, name = (clips[column].to_numpy(str) for column in ("group", "domain", "name"))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    other_domain = domain[:, None] != domain[None]
    by_domain, elsewhere, within = _QUESTIONS
    nearest = {
        elsewhere: np.where(other_domain, alike, -np.inf),
        within: np.where(other_domain | (groups[:, None] == groups[None]), -np.inf, alike),
    }
    right = {by_domain: _domain_told(vectors, domain, groups, seed)}
    for question, by in nearest.items():
        right[question] = np.where(np.isfinite(by.max(axis=1)), name[by.argmax(axis=1)] == name, np.nan)
    trivial = {by_domain: clips.domain.value_counts(normalize=True).iloc[0]}
    rows = {}
    for question, values in right.items():
        asked = np.isfinite(values)
        found = (
            bootstrap_mean(values[asked], groups[asked], n_resamples=n_resamples, seed=seed)
            if asked.any()
            else Interval(np.nan, np.nan, np.nan)
        )
        rows[question] = vars(found) | {"trivial": trivial.get(question, 1 / len(names)), "n_clips": int(asked.sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("question")


def map_arrays(embedded: Embedded) -> dict[str, Any]:
    """Arrange an embedding for `plots.embedding_map`."""
    clips = embedded.clips
    return {
        "places": clips[["x", "y"]].to_numpy().round(2).astype(np.float32),
        "classes": clips.name.to_numpy(str),
        "domains": clips.domain.to_numpy(str),
        "perplexity": embedded.perplexity,
    }


# -- confusions --------------------------------------------------------------------------------------------------------


def example_pair(answered: Sequence[Answered], *, source: str, rendered: bool = False) -> Answered:
    """Choose a pair to look at closely: the domain `source` and the last that its networks were tested on.

    Parameters
    ----------
    answered : sequence of Answered
        From `answer`.
    source : str
        Name of a domain. Where it was not tested on another one, the last pair of any two is taken, and where there is
        none, its own test part.
    rendered : bool
        Whether the target should be rendered, so that it is known which program plays; else recorded. Where there is
        no such target, any other one is taken.

    Returns
    -------
    Answered
    """
    apart = [one for one in answered if one.adapted is not None]
    of_source = [one for one in apart if one.source.name == source]
    wanted = [one for one in of_source if bool(one.target.fonts) == rendered]
    return (wanted or of_source or apart or [one for one in answered if one.source.name == source])[-1]


def confusions(answered: Answered, *, column: str | None = None, by_adapted: bool = False) -> pd.DataFrame:
    """Say which classes are taken for which, the largest share first.

    Parameters
    ----------
    answered : Answered
        One pair.
    column : str, optional
        A column of the target's manifest that the classes are told apart by, such as the `program` of rendered clips:
        30 is a distorted guitar.
    by_adapted : bool
        Whether the adapted networks are asked.

    Returns
    -------
    pandas.DataFrame
        One row for each class of the target (and value of the column) and wrong class that was answered: `label`,
        [column], `answered`, `count` (answers of all networks), `share` of all their answers to clips of the class,
        `n_clips`, `n_groups` and `known` (whether the source has the class at all; else every answer is wrong).
    """
    said = answered.adapted if by_adapted else answered.predictions
    clips = _answers_table(answered, said, column)
    told_apart = ["label", *([column] if column else [])]
    sizes = clips.drop_duplicates("clip_id").groupby(told_apart)
    every = clips.groupby(told_apart).size()
    wrong = clips[~clips.right].groupby([*told_apart, "answered"]).size().rename("count").reset_index()
    if wrong.empty:
        return wrong.assign(share=[], n_clips=[], n_groups=[], known=[])
    rows = pd.MultiIndex.from_frame(wrong[told_apart]) if column else pd.Index(wrong.label)
    known = dict(zip(answered.target.store.classes, answered.common.of_target >= 0, strict=True))
    wrong = wrong.assign(
        share=wrong["count"].to_numpy() / every.reindex(rows).to_numpy(),
        n_clips=sizes.size().reindex(rows).to_numpy(),
        n_groups=sizes.group.nunique().reindex(rows).to_numpy(),
        known=wrong.label.map(known),
    )
    return wrong.sort_values(["share", "count"], ascending=False, kind="stable", ignore_index=True)


def examples(answered: Answered, *, n: int, label: str | None = None, taken_for: str | None = None) -> pd.DataFrame:
    """Find the clips whose wrong answer the first network is surest of.

    Parameters
    ----------
    answered : Answered
        One pair.
    n : int
        At most so many, of different groups, and of different confusions while there are any.
    label, taken_for : str, optional
        Only clips of this class of the target, only answers of this class of the source.

    Returns
    -------
    pandas.DataFrame
        The surest first: rows of the target's manifest with `answered` and `probability`, as `listening.players` and
        `wrong_maps` take them. Classes that the source does not know are left out.
    """
    said = answered.predictions | {"probabilities": answered.predictions["probabilities"][:1]}
    table = _answers_table(answered, said, None)
    table = table[~table.right & table.known].sort_values("probability", ascending=False, kind="stable")
    for name, wanted in (("label", label), ("answered", taken_for)):
        table = table if wanted is None else table[table[name] == wanted]
    table = table.drop_duplicates("group")
    turn = table.groupby(["label", "answered"]).cumcount()
    chosen = table.assign(turn=turn).sort_values("turn", kind="stable").head(n)
    chosen = chosen.sort_values("probability", ascending=False, kind="stable")[["clip_id", "answered", "probability"]]
    return chosen.merge(answered.target.corpus.manifest, on="clip_id", how="left")


def wrong_maps(answered: Answered, shown: pd.DataFrame) -> dict[str, Any]:
    """Show what the first network listened to in clips that it took for another class.

    Parameters
    ----------
    answered : Answered
        One pair.
    shown : pandas.DataFrame
        Clips, from `examples`; of each the segment that speaks most for the answer is taken.

    Returns
    -------
    dict
        The arguments of `charts.spectrograms`: class activation maps of the class that was answered.

    Raises
    ------
    ConfigError
        When the network has no class activation map; see `saliency.class_activation_maps`.
    """
    store, classes = answered.target.store, list(answered.source.store.classes)
    model, scaler = load_model(answered.runs[0])
    grid = cell_grid(model, last_picture_layer(model))
    rows, maps, titles = [], [], []
    for clip in shown.itertuples():
        own_rows = store.segments.row[store.segments.clip_id == clip.clip_id].to_numpy()
        x, place = store.read(own_rows, scaler), classes.index(clip.answered)
        surest = int(model.predict_on_batch(x)[:, place].argmax())
        rows.append(int(own_rows[surest]))
        maps.append(upsample(class_activation_maps(model, x[surest : surest + 1])[0, place], grid))
        titles.append(f"{clip.label}: {clip.answered} {clip.probability:.2f}")
    return overlay_arrays(rows, np.maximum(maps, 0), titles, store)


# -- parts -------------------------------------------------------------------------------------------------------------


def _answer_all(
    place: Path, run: Path, targets: Sequence[tuple[str, Path]]
) -> dict[str, tuple[Predictions, Predictions]]:
    """Let one network, and its adapted copies, answer all clips of several domains; by the domains' names."""
    config = FeatureConfig.from_dict(read_json(run / "preprocessing.json")["features"])
    source = code_hash("studies")
    scaler, load = load_scaler(run), functools.cache(lambda: load_model(run)[0].predict_on_batch)
    found = {}
    for name, folder in targets:
        store = dataclasses.replace(open_store(folder), config=config)
        clips = sorted(store.clips.clip_id)
        every = Split(pd.Series("test", index=clips), 0)
        ways: dict[str, Callable[[], Any]] = {
            "as trained": load,
            "adapted": functools.partial(_adapted, run, store),
        }
        found[name] = tuple(
            answer_test(
                place / f"{store.fingerprint}-{way.replace(' ', '-')}.npz",
                hash_json([source, read_manifest(run)["key"], store.fingerprint, way, versions()]),
                load_one,
                store=store,
                scaler=scaler,
                split=every,
            )
            for way, load_one in ways.items()
        )
    return found


def _adapted(run: Path, store: FeatureStore) -> Callable[[np.ndarray], np.ndarray]:
    return adapt_batch_norm(run, store, store.segments.row.to_numpy()).predict_on_batch


def _stacked(answers: Sequence[Predictions]) -> Predictions:
    return answers[0] | {"probabilities": np.stack([one["probabilities"] for one in answers])}


def _only(probabilities: np.ndarray, n_names: int) -> np.ndarray:
    """Probabilities when only the first classes may be answered."""
    some = probabilities[..., :n_names]
    return some / np.maximum(some.sum(axis=-1, keepdims=True), np.finfo(float).tiny)


def _commonest(domain: Domain) -> int:
    """Class with the most clips in the training part."""
    parts = load_split(domain.splits[0], domain.store.segments).parts
    clips = domain.store.clips
    targets = clips.target[clips.clip_id.map(parts) == "train"]
    return int(np.bincount(targets, minlength=len(domain.store.classes)).argmax())


def _class_weighted(told: Predictions) -> np.ndarray:
    """Whether each network is right, clip by clip, weighed so that the mean is balanced accuracy."""
    right = np.atleast_2d(told["probabilities"].argmax(axis=-1)) == told["targets"]
    counts = np.bincount(told["targets"])
    weight = len(told["targets"]) / (np.count_nonzero(counts) * counts[told["targets"]])
    return right * weight


def _drop(one: Answered, of_itself: Answered, draws: dict[str, int]) -> dict[str, float]:
    same_classes = dataclasses.replace(one.common, of_target=one.common.of_source)
    here, there = (
        in_common_classes(said, common)
        for said, common in ((of_itself.predictions, same_classes), (one.predictions, one.common))
    )
    sides = [
        (np.atleast_2d(said["probabilities"].argmax(axis=-1) == said["targets"]), said["targets"], said["group"])
        for said in (here, there)
    ]
    found = balanced_difference(*sides, **draws)
    return {
        "own": float(_class_weighted(here).mean()),
        "drop": found.estimate,
        "drop_low": found.low,
        "drop_high": found.high,
        "p": found.p,
    }


def _map(vectors: np.ndarray, perplexity: float, seed: int) -> dict[str, np.ndarray]:
    from sklearn.manifold import TSNE

    drawn = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors.astype(np.float64))
    return {"places": drawn.astype(np.float32)}


def _domain_told(vectors: np.ndarray, domain: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Whether a logistic regression names the domain of each clip, from clips of other groups; NaN of one group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_groups = pd.DataFrame({"domain": domain, "group": groups}).groupby("domain").group.nunique().min()
    if n_groups < 2:
        return np.full(len(domain), np.nan)
    folds = StratifiedGroupKFold(min(int(n_groups), _FOLDS), shuffle=True, random_state=seed)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return (cross_val_predict(classifier, vectors, domain, groups=groups, cv=folds) == domain).astype(float)


def _answers_table(answered: Answered, said: Predictions, column: str | None) -> pd.DataFrame:
    """One row for each network and clip: `clip_id`, `group`, `label`, [column], `answered`, `probability`, `right`."""
    probabilities = said["probabilities"]
    place, target = probabilities.argmax(axis=-1), said["targets"]
    common = answered.common
    table = pd.DataFrame(
        {
            "clip_id": np.tile(said["clip_id"], len(place)),
            "group": np.tile(said["group"], len(place)),
            "label": np.tile(np.array(answered.target.store.classes)[target], len(place)),
            "answered": np.array(answered.source.store.classes)[place].ravel(),
            "probability": probabilities.max(axis=-1).ravel(),
            "known": np.tile(common.of_target[target] >= 0, len(place)),
            "right": ((common.of_source[place] == common.of_target[target]) & (common.of_target[target] >= 0)).ravel(),
        }
    )
    if column:
        table[column] = table.clip_id.map(answered.target.corpus.manifest.set_index("clip_id")[column])
    return table
