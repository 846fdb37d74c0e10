"""Domains: corpora with different recording conditions, and degraded recordings.

Networks are trained on one domain and tested on all others; the released model, as `instrlib predict` runs it, is also
tested on degraded clips.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from instrlib.audio import decode
from instrlib.audio.effects import DEGRADATIONS, degrade, encode, generator
from instrlib.core import io
from instrlib.core.cache import cached, key
from instrlib.core.config import Profile, folders
from instrlib.core.io import ConfigError, CorpusError, LeakError, expanded, listed, slug
from instrlib.core.parallel import parallel_map
from instrlib.data import corpora, rendered
from instrlib.data.corpora import Corpus
from instrlib.data.files import CONTENT, is_audio
from instrlib.data.rendered import sources
from instrlib.data.splits import Split, make_split, save_splits
from instrlib.data.store import FeatureStore, Inputs, build_store, open_store
from instrlib.data.taxonomy import FAMILIES, common_classes, common_name
from instrlib.evaluation import statistics
from instrlib.evaluation.calibration import is_named
from instrlib.evaluation.predictions import Predictions
from instrlib.models.published import PublishedModel, predict_file
from instrlib.models.trained import load_model, load_scaler, predict_clips, read_manifest
from instrlib.models.variants import Outcome

if TYPE_CHECKING:
    import keras

VARIABLE = "INSTRLIB_CORPORA"  # further corpora: "fsdkaggle2018=/sound/FSD:folder=/sound/mine", as in PATH
CLIPS_PER_CLASS = {"smoke": 12, "quick": 40, "full": 150}  # in all domains except the study's own corpus
DEGRADED_PER_CLASS = {"smoke": 1, "quick": 8, "full": 40}  # test clips that are degraded; each is predicted 40 times
UNTOUCHED = "untouched"
UNKNOWN = -1  # target of a clip whose class the model does not have

_CHANCE = 1e-3  # share of samples that two soundfonts may have in common: simple waves are alike everywhere
_MEASURED = 1000  # segments, at most, whose statistics a network is adapted to
_SCORES = ("accuracy", "log_loss", "expected_calibration_error")  # that `scores` takes from `metrics.scores`
_WAYS = "as trained", "adapted"  # of predicting another domain


@dataclass(frozen=True)
class Domain:
    """A corpus with its features and splits."""

    name: str  # unique
    corpus: Corpus
    store: FeatureStore  # all domains of a study have the same feature settings
    splits: tuple[Path, ...] = ()  # one split, or the folds of the study's corpus; () if too small for training
    fonts: frozenset[str] = frozenset()  # soundfonts that play the corpus; empty for recordings

    @property
    def common(self) -> dict[str, str]:
        """The common name of each class that has one; see `data.taxonomy`."""
        return {label: name for label in self.store.classes if (name := common_name(self.corpus.name, label))}


@dataclass(frozen=True)
class Common:
    """Classes that two domains share: `names`, and for each class of either its index in `names` or -1."""

    names: tuple[str, ...]
    of_source: np.ndarray
    of_target: np.ndarray


@dataclass(frozen=True)
class Crossing:
    """Predictions of the networks of one domain for another, or for its own test part (`adapted` is None)."""

    source: Domain
    target: Domain
    common: Common
    predictions: Predictions  # targets: classes of the target; probabilities [network, clip, class]: of the source
    adapted: Predictions | None = None


def available(corpus: Corpus, inputs: Inputs, *, profile: Profile, folder: Path) -> tuple[list[Domain], list[str]]:
    """Open all domains on this machine, and compute missing features and splits.

    Domains are the study's own corpus (first), the built-in corpus played by each single soundfont, the corpora in
    `INSTRLIB_CORPORA` (an unusable one raises an error), and those in the data folder. All but the first are split
    once, in `folder`. Also returns a sentence for each corpus that is excluded, or not used for training.
    """
    _check_usable(corpus.name, corpus, [])
    cap = CLIPS_PER_CLASS[profile.name]
    smaller = dataclasses.replace(profile, clips_per_class=cap, max_clips_per_class=cap)
    own = frozenset(corpus.manifest.font) if corpus.name == "rendered" else frozenset()
    domains, excluded = [Domain(corpus.name, corpus, inputs.store, inputs.splits, own)], []

    def add(name: str, clips: Corpus, fonts: frozenset[str] = frozenset()) -> None:
        store = build_store(clips, inputs.store.config, root=folders().data / "features")
        splits: list[Path] = []
        try:
            splits = save_splits([make_split(store.clips, seed=0)], folder / "splits" / slug(name))
        except io.SplitError as error:
            excluded.append(f"{name}: tested on, but not trained on. {error}")
        domains.append(Domain(name, clips, store, tuple(splits), fonts))

    for font in sorted(sources.fonts()):
        if own != {font}:
            players = rendered.Players((font,))
            clips = rendered.load(folders().data / "rendered", clips_per_class=cap, players=players)
            add(font, clips, frozenset({font}))
    for corpus_name, root, named in _places():
        try:
            clips = corpora.load(corpus_name, data=root, profile=smaller)
            wanted = corpus_name if corpus_name != "folder" else f"folder {root.name}"
            numbered = (wanted, *(f"{wanted} {number}" for number in range(2, len(domains) + 2)))
            name = next(one for one in numbered if slug(one) not in {slug(domain.name) for domain in domains})
            # A corpus with the same clips, or with some from the same folder, is the same domain.
            marks = [{one.fingerprint, (one.name, one.root.resolve())} for one in (clips, *(d.corpus for d in domains))]
            if marks[0] & set().union(*marks[1:]):
                continue
            _check_usable(name, clips, domains)
            add(name, clips)
        except (ConfigError, CorpusError, LeakError, io.StoreError) as error:
            if named:
                raise
            excluded.append(f"{corpus_name}: {error}")
    return domains, excluded


def on_this_machine() -> dict[str, str]:
    """Return a hash of each soundfont and corpus that `available` finds besides the study's own corpus."""
    fonts = {name: sources.font_hash(path) for name, path in sorted(sources.fonts().items())}
    return fonts | {f"{name} in {root}": io.hash_tree(root) for name, root, _ in _places()}


def pairs(domains: Sequence[Domain]) -> tuple[list[tuple[Domain, Domain]], list[str]]:
    """Return the comparable pairs (trained on, tested on), and a sentence for each pair that is not."""
    kept, excluded = set(), []
    for first, second in combinations(domains, 2):
        names = in_common(first, second).names
        if shared := shared_sounds(first.fonts, second.fonts):
            excluded.append(f"{first.name} and {second.name} share samples of {listed(shared)}.")
        elif len(names) < 2:
            excluded.append(f"{first.name} and {second.name} have {names[0] if names else 'no class'} in common.")
        else:
            kept |= {(first.name, second.name), (second.name, first.name)}
    both = [(one, other) for one in domains for other in domains if (one.name, other.name) in kept and one.splits]
    return both, excluded


def in_common(source: Domain, target: Domain) -> Common:
    """Return the classes that two domains share; a domain shares all classes with itself."""
    given, asked = source.store.classes, target.store.classes
    if source.name == target.name:
        place = np.arange(len(given))
        return Common(given, place, place)
    there = common_classes(source.corpus.name, target.corpus.name, classes_a=given, classes_b=asked)
    back = common_classes(target.corpus.name, source.corpus.name, classes_a=asked, classes_b=given)
    matches = np.array([[there.get(one) == other or back.get(other) == one for other in asked] for one in given])
    linked = np.block([[np.zeros((len(given),) * 2), matches], [matches.T, np.zeros((len(asked),) * 2)]])
    component = np.split(connected_components(linked)[1], [len(given)])
    named = []
    for number in np.intersect1d(*component):
        sides = [
            sorted({one.common[label] for label in np.array(one.store.classes)[own == number]})
            for one, own in zip((source, target), component, strict=True)
        ]
        # The name in the domain with one such class, or the wider name.
        _, _, name = min((len(names), names[0] not in FAMILIES, " or ".join(names)) for names in sides)
        named.append((name, number))
    names, numbers = zip(*sorted(named), strict=True) if named else ((), ())
    return Common(names, *(pd.Index(numbers).get_indexer(own) for own in component))


def to_common(predictions: Predictions, common: Common) -> Predictions:
    """Return the predictions for clips of common classes, summed over source classes of one name; the others follow."""
    targets = common.of_target[predictions["targets"]]
    known = targets >= 0
    unmatched = common.of_source < 0
    column = np.where(unmatched, len(common.names) - 1 + np.cumsum(unmatched), common.of_source)
    joined = np.eye(len(common.names) + unmatched.sum())[column]
    found = {name: predictions[name][known] for name in ("clip_id", "group")} | {"targets": targets[known]}
    return found | {"probabilities": np.asarray(predictions["probabilities"], float)[..., known, :] @ joined}


def shared_sounds(first: frozenset[str], second: frozenset[str]) -> list[str]:
    """Return the soundfonts in `first` that share a recording with one in `second`."""
    places = sources.fonts()

    def share(name: str, other: str) -> bool:
        both = {name, other} <= set(places)
        return name == other or (both and sources.shared_samples(places[name], places[other]) > _CHANCE)

    return [name for name in sorted(first) if any(share(name, other) for other in second)]


def cross(folder: Path, domains: Sequence[Domain], outcomes: dict[str, Outcome]) -> list[Crossing]:
    """Predict all `pairs` after each trained domain with itself, by original and adapted networks."""
    asked = [(source, target) for source, target in pairs(domains)[0] if source.name in outcomes]
    runs = [(run, target.store.folder) for source, target in asked for run in outcomes[source.name].flat]
    tasks = [(folder / "answers" / run.relative_to(run.parents[2]), run, store) for run, store in runs]
    answers = iter(list(parallel_map(_predict_domain, tasks, describe="other domains", isolate=True)))
    trained = [one for one in domains if one.name in outcomes]
    found = [Crossing(one, one, in_common(one, one), outcomes[one.name].predictions) for one in trained]
    for source, target in asked:
        by_run = [next(answers) for _ in outcomes[source.name].flat]
        ways = [by_run[0] | {"probabilities": np.stack([one[way] for one in by_run])} for way in _WAYS]
        found.append(Crossing(source, target, in_common(source, target), *ways))
    return found


def _predict_domain(place: Path, run: Path, target: Path) -> dict[str, np.ndarray]:
    """Return the predictions of a network for all clips of a store, with probabilities by each of `_WAYS`."""
    store = open_store(target)

    def make() -> dict[str, np.ndarray]:
        models, scaler = (load_model(run)[0], adapt_batch_norm(run, store)), load_scaler(run)
        by_way = [predict_clips(model.predict_on_batch, store, scaler, store.segments) for model in models]
        return by_way[0] | {way: one["probabilities"] for way, one in zip(_WAYS, by_way, strict=True)}

    made_of = key("studies", network=read_manifest(run)["key"], store=store.fingerprint)
    return cached(place / f"{store.fingerprint}.npz", made_of, make)


def adapt_batch_norm(run: Path, store: FeatureStore) -> "keras.Model":
    """Copy a network with batch normalisation statistics of the unlabelled segments of a store (arXiv:1603.04779)."""
    rows, (model, scaler) = store.segments.row.to_numpy(), load_model(run)
    spread = np.linspace(0, len(rows) - 1, min(len(rows), _MEASURED)).round().astype(int)
    x = store.read(rows[spread], scaler)
    for layer in model.layers[1:]:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0  # a call in training mode then sets the statistics to those of its input
            layer(x, training=True)
        x = layer(x)
    return model


def _check_usable(name: str, corpus: Corpus, domains: Sequence[Domain]) -> None:
    if corpus.multilabel:
        raise ConfigError(f"Clips of {name} have several labels; use a corpus with one label per clip.")
    for one in domains:
        sides = [one.corpus.manifest, corpus.manifest]
        if all(CONTENT in side for side in sides) and (same := set(sides[0][CONTENT]) & set(sides[1][CONTENT])):
            first, second = (side.path[side[CONTENT] == min(same)].iloc[0] for side in sides)
            raise LeakError(f"{first} of {one.name} and {second} of {name} are the same recording; remove one of them.")


def _places() -> Iterator[tuple[str, Path, bool]]:
    """Yield name and folder of every corpus on this machine, and whether `INSTRLIB_CORPORA` names it."""
    known = [one for one in corpora.NAMES if one != "rendered"]
    for entry in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(os.pathsep))):
        name, _, place = (part.strip() for part in entry.partition("="))
        if name not in known or not place or not expanded(place, VARIABLE).is_dir():
            names = ", ".join(known)
            raise ConfigError(f'{VARIABLE}: {entry!r} is not "name=folder" with one of {names} and an existing folder.')
        yield name, expanded(place, VARIABLE), True
    for name in known:
        root = folders().data / name
        if name != "folder" and any(is_audio(Path(one)) for _, _, names in os.walk(root) for one in names):
            yield name, root, False


def choose_clips(model: PublishedModel, corpus: Corpus, split: Split, *, per_class: int) -> list[str]:
    """Choose up to `per_class` clips of each class from the test part, from as many groups as possible; sorted."""
    unseen = _unseen(model, corpus, corpus, split) & corpus.manifest.clip_id.map(split.parts).eq("test")
    drawn = corpus.manifest[unseen].sample(frac=1, random_state=0)
    turn = drawn.groupby(["label", "group"]).cumcount().sort_values(kind="stable")
    chosen = drawn.loc[turn.index].groupby("label").head(per_class)
    return sorted(chosen.clip_id)


def name_of(degradation: str, level: float) -> str:
    """Return the name of a degradation at a level, such as "pink noise at 10 dB SNR"."""
    return f"{DEGRADATIONS[degradation].label} at {level:g} {DEGRADATIONS[degradation].unit}"


def predict_degraded(
    folder: Path, model: PublishedModel, corpus: Corpus, clips: Sequence[str], split: Split
) -> dict[str, Predictions]:
    """Predict test clips `UNTOUCHED`, then under every degradation (`name_of`), from mild to severe; cached.

    `corpus` and `split` are those of the model's training; possible training clips raise `LeakError`. Noise and rooms
    differ between clips, but not between levels.
    """
    if seen := sorted(set(clips) - set(corpus.manifest.clip_id[_unseen(model, corpus, corpus, split)])):
        raise LeakError(f"{model.folder} may have been trained on the clip {seen[0]!r} or its group; leave it out.")
    found = {UNTOUCHED: _predictions(folder / f"{UNTOUCHED}.npz", model, corpus, clips)[0]}
    for name, degradation in DEGRADATIONS.items():
        by_level = _predictions(folder / f"{name}.npz", model, corpus, clips, name)
        found |= {name_of(name, level): one for level, one in zip(degradation.levels, by_level, strict=True)}
    return found


def predict_domain(path: Path, model: PublishedModel, corpus: Corpus, *, study: Corpus, split: Split) -> Predictions:
    """Predict clips of another corpus whose groups are outside the training, or the test part of the study's own."""
    told = corpus.manifest.label.isin(list(class_of(model, corpus)))
    clips = corpus.manifest.clip_id[_unseen(model, corpus, study, split) & told]
    return _predictions(path, model, corpus, clips)[0]


def class_of(model: PublishedModel, corpus: Corpus) -> dict[str, str | None]:
    """Return the model's class for each class of a corpus, None if it lacks it; wider classes are left out."""
    trained_on = model.about["corpus"]["name"]
    if corpus.name == trained_on:
        return {label: label if label in model.classes else None for label in corpus.classes}
    known = common_classes(corpus.name, trained_on, classes_a=corpus.classes, classes_b=model.classes)
    back = common_classes(trained_on, corpus.name, classes_a=model.classes, classes_b=corpus.classes)
    wider = set(back.values()) - set(known)
    return {label: known.get(label) for label in corpus.classes if label not in wider}


def _unseen(model: PublishedModel, corpus: Corpus, study: Corpus, split: Split) -> np.ndarray:
    """Return for each clip of a corpus whether its group is outside the training [n_clips]."""
    if split.fingerprint != model.about["split"]:
        raise LeakError(f"{model.folder} was trained with another split; use that of its fold ({model.about['fold']}).")
    table, theirs = corpus.manifest, study.manifest.set_index("clip_id")
    shared = table.clip_id.isin(theirs.index)
    if CONTENT in table and CONTENT in theirs:  # files in two folders can have the same name
        shared &= table[CONTENT] == table.clip_id.map(theirs[CONTENT])
    if not shared.any():  # other recordings, whose groups can have the same names
        return np.ones(len(table), dtype=bool)
    trained = theirs.group[theirs.index.map(split.parts).isin(["train", "validation"])]
    return ~table.group.isin(set(trained)).to_numpy()


def _predictions(
    path: Path, model: PublishedModel, corpus: Corpus, clips: Iterable[str], name: str = ""
) -> list[Predictions]:
    """Return the predictions of clips under each level of a degradation, or without one if unnamed."""
    table, network = corpus.manifest.set_index("clip_id").loc[sorted(clips)], model.single
    levels = DEGRADATIONS[name].levels if name else (np.nan,)

    def make() -> dict[str, np.ndarray]:
        rows = [(one.Index, corpus.root / one.path, one.start_s, one.duration_s) for one in table.itertuples()]
        tasks = [(model, part, name, levels) for part in io.in_parts(rows, 4)]
        return {"probabilities": np.concatenate(list(parallel_map(_predict_batch, tasks, describe="predicting")))}

    made_of = {"network": io.hash_file(network.file), "temperature": network.temperature, "degradation": [name, levels]}
    made_of |= {"features": network.features.to_dict(), "scaler": network.scaler.to_dict()}
    made_of |= {"clips": [corpus.fingerprint, list(table.index)]}
    answers = cached(path, key("studies", **made_of), make)["probabilities"]
    meaning = class_of(model, corpus)
    targets = [model.classes.index(meaning[one]) if meaning[one] else UNKNOWN for one in table.label]
    known = {"clip_id": table.index.to_numpy(str), "targets": np.array(targets)}
    known |= {column: table[column].to_numpy(str) for column in ("group", "label")}
    return [known | {"probabilities": answers[:, number]} for number in range(len(levels))]


def _predict_batch(
    model: PublishedModel, rows: list[tuple[str, Path, float, float]], name: str, levels: tuple[float, ...]
) -> np.ndarray:
    rate_hz = model.single.features.sample_rate_hz
    # Where all analysed parts are silent, probabilities are uniform.
    answers = np.full((len(rows), len(levels), len(model.classes)), 1 / len(model.classes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        for row, (clip_id, file, start_s, duration_s) in enumerate(rows):
            signal = decode.load(file, sample_rate_hz=rate_hz, start_s=start_s, duration_s=duration_s)
            for number, level in enumerate(levels):
                rng = generator(0, clip_id, name)
                changed = degrade(signal, rate_hz, name, level, rng) if name else signal
                with io.disk_errors(path):
                    path.write_bytes(encode(changed, rate_hz, format="WAV", subtype="FLOAT").getvalue())
                with contextlib.suppress(io.AudioError):
                    answers[row, number] = predict_file(path, model).probabilities
    return answers


def scores(predictions: dict[str, Predictions], model: PublishedModel, *, n_resamples: int) -> pd.DataFrame:
    """Return a `statistics.score_table` of several predictions on the clips of known classes.

    It adds `confidence_gap`, the mean confidence minus the accuracy (unlike the calibration error without bias in small
    samples), `abstained`, and `accuracy_of_answers`, without abstentions; answers to unknown classes are wrong.
    """
    tables = []
    for name, every in predictions.items():
        known, confidence = every["targets"] != UNKNOWN, every["probabilities"].max(axis=1)
        named = is_named(every["probabilities"], model.single.thresholds)
        right = every["probabilities"].argmax(axis=1) == every["targets"]
        means = {"confidence_gap": (confidence - right, known), "abstained": (~named, known)}
        drawn = _means(every, means | {"accuracy_of_answers": (right, named)}, n_resamples)
        own = statistics.intervals(drawn).rename_axis("score").reset_index().assign(model=name)
        of_known = {name: {field: values[known] for field, values in every.items()}}
        table = statistics.score_table(of_known, n_resamples=n_resamples, seed=0)
        table = pd.concat([table[table.score.isin(_SCORES)], own], ignore_index=True)
        tables.append(table.assign(n=known.sum(), n_groups=len(np.unique(every["group"][known]))))
    return pd.concat(tables, ignore_index=True)


def abstentions(domains: dict[str, Predictions], model: PublishedModel, *, n_resamples: int) -> pd.DataFrame:
    """Compare abstentions on unknown and known classes, in the domains with both; "better" is more on unknown ones.

    `known` and `unknown` are shares of abstentions, `auroc` is that of the top probability for known clips.
    """
    draws, rows, n_resamples = {}, {}, statistics.enough_resamples(n_resamples, len(domains))
    for domain, every in domains.items():
        known = every["targets"] != UNKNOWN
        if known.all() or not known.any():
            continue
        abstained = ~is_named(every["probabilities"], model.single.thresholds)
        drawn = _means(every, {"known": (abstained, known), "unknown": (abstained, ~known)}, n_resamples)
        draws |= {(domain, part): values for part, values in drawn.items()}
        confidence = every["probabilities"].max(axis=1)[:, None]
        ranked = every | {"labels": known[:, None].astype(float), "probabilities": confidence}
        area = statistics.score_table({"": ranked}, n_resamples=n_resamples, seed=0).set_index("score").loc["roc_auc"]
        rows[domain] = {"n_known": known.sum(), "n_unknown": (~known).sum()}
        rows[domain] |= {part: values[0, 0] for part, values in drawn.items()}
        rows[domain] |= {"auroc": area.estimate, "auroc_low": area.low, "auroc_high": area.high}
    if not rows:
        return pd.DataFrame()
    pairs = [((domain, "unknown"), (domain, "known")) for domain in rows]
    n_groups = min(len(np.unique(domains[domain]["group"])) for domain in rows)
    compared = statistics.comparison_table(draws, pairs, n_groups=n_groups)
    return pd.DataFrame.from_dict(rows, orient="index").join(compared.set_axis(list(rows)))


def _means(
    predictions: Predictions, parts: dict[str, tuple[np.ndarray, np.ndarray]], n_resamples: int
) -> dict[str, np.ndarray]:
    """Return draws [1, 1 + n_resamples] of the means of values over the clips of a mask, by name; NaN if empty."""

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {name: weights @ (values * own) / (weights @ own) for name, (values, own) in parts.items()}

    return statistics.draw([means], predictions["group"], predictions["targets"], n_resamples=n_resamples, seed=0)
