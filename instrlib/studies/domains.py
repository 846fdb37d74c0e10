"""Domains: corpora with different recording conditions. Networks are trained on one and tested on all others."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from instrlib.core import cache
from instrlib.core.config import Profile, folders
from instrlib.core.io import ConfigError, CorpusError, LeakError, SplitError, StoreError, hash_tree, listed, slug, whole
from instrlib.core.parallel import parallel_map
from instrlib.data import corpora, rendered
from instrlib.data.corpora import Corpus
from instrlib.data.files import CONTENT, is_audio
from instrlib.data.rendered import sources
from instrlib.data.splits import make_split, save_splits
from instrlib.data.store import FeatureStore, Inputs, build_store, open_store
from instrlib.data.taxonomy import FAMILIES, common_classes, common_name
from instrlib.evaluation.predictions import Predictions
from instrlib.models.trained import load_model, load_scaler, predict_clips, read_manifest
from instrlib.models.variants import Outcome

if TYPE_CHECKING:
    import keras

VARIABLE = "INSTRLIB_CORPORA"  # further corpora: "fsdkaggle2018=/sound/FSD:folder=/sound/mine", as in PATH
CLIPS_PER_CLASS = {"smoke": 12, "quick": 40, "full": 150}  # in all domains except the study's own corpus

_CHANCE = 1e-3  # share of samples that two soundfonts may have in common: simple waves are alike everywhere
_BATCH = 128
_MEASURED = 1000
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
    """Predictions of the networks of one domain for another, or for its own test part (`adapted` is None).

    `targets` are classes of the target, `probabilities` [network, clip, class] those of the source.
    """

    source: Domain
    target: Domain
    common: Common
    predictions: Predictions
    adapted: Predictions | None = None


def at_hand(corpus: Corpus, inputs: Inputs, *, profile: Profile, folder: Path) -> tuple[list[Domain], list[str]]:
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
        except SplitError as error:
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
            here = [(one.corpus.name, one.corpus.root.resolve()) for one in domains]
            if (clips.name, clips.root.resolve()) in here or clips.fingerprint in [
                one.corpus.fingerprint for one in domains
            ]:
                continue
            _check_usable(name, clips, domains)
            add(name, clips)
        except (ConfigError, CorpusError, LeakError, StoreError) as error:
            if named:
                raise
            excluded.append(f"{corpus_name}: {error}")
    return domains, excluded


def on_this_machine() -> dict[str, str]:
    """Return a hash of each soundfont and corpus that `at_hand` finds besides the study's own corpus."""
    fonts = {name: sources.font_hash(path) for name, path in sorted(sources.fonts().items())}
    return fonts | {f"{name} in {root}": hash_tree(root) for name, root, _ in _places()}


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
        sides = []
        for one, own in zip((source, target), component, strict=True):
            sides.append(
                sorted({one.common[label] for label, at in zip(one.store.classes, own, strict=True) if at == number})
            )
        # The name in the domain with one such class, or the wider name.
        _, _, name = min((len(names), names[0] not in FAMILIES, " or ".join(names)) for names in sides)
        named.append((name, number))
    names, numbers = zip(*sorted(named), strict=True) if named else ((), ())
    return Common(names, *(pd.Index(numbers).get_indexer(own) for own in component))


def to_common(predictions: Predictions, common: Common) -> Predictions:
    """Return the predictions for clips of common classes, with `targets` among `common.names`.

    `probabilities` are summed over the classes of the source with one name; its other classes follow.
    """
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

    key = cache.key("studies", network=read_manifest(run)["key"], store=store.fingerprint)
    return cache.cached(place / f"{store.fingerprint}.npz", key, make)


def adapt_batch_norm(run: Path, store: FeatureStore) -> "keras.Model":
    """Copy a network with batch normalisation statistics of the unlabelled segments of a store (arXiv:1603.04779).

    Layers are adapted from the input to the output; weights and input scaling do not change.
    """
    rows = store.segments.row.to_numpy()
    model, scaler = load_model(run)
    spread = np.linspace(0, len(rows) - 1, min(len(rows), _MEASURED)).round().astype(int)
    blocks = [store.read(block, scaler) for block in np.array_split(rows[spread], -(-len(spread) // _BATCH))]
    for layer in model.layers[1:]:
        if type(layer).__name__ == "BatchNormalization":
            values = [np.asarray(block, dtype=np.float64).reshape(-1, block.shape[-1]) for block in blocks]
            n = sum(map(len, values))
            mean = sum(one.sum(axis=0) for one in values) / n
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(sum(np.square(one - mean).sum(axis=0) for one in values) / n)
        blocks = [layer(block) for block in blocks]
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
        if name not in known or not place or not whole(place, VARIABLE).is_dir():
            names = ", ".join(known)
            raise ConfigError(
                f'{VARIABLE}: write "name=folder" with one of {names} and an existing folder, not {entry!r}.'
            )
        yield name, whole(place, VARIABLE), True
    for name in known:
        root = folders().data / name
        if name != "folder" and any(is_audio(Path(one)) for _, _, names in os.walk(root) for one in names):
            yield name, root, False
