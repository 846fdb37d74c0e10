"""The sound worlds that a study can compare: its own corpus, each soundfont on this machine, corpora at hand.

A domain is a corpus with its features, its splits and the common names of its classes. Networks are trained on one and
tested on another by `domain_study`; here is told which there are and which pairs of them may be asked.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.config import FeatureConfig, Profile, folders
from instrlib.core.errors import ConfigError, CorpusError, LeakError, SplitError, StoreError
from instrlib.core.io import hash_tree, slug, whole
from instrlib.core.words import listed
from instrlib.data import corpora, rendered
from instrlib.data.dataset import Corpus
from instrlib.data.files import CONTENT, walk_audio
from instrlib.data.inputs import Inputs
from instrlib.data.rendered import sources as soundfont
from instrlib.data.splits import make_split, save_splits
from instrlib.data.store import FeatureStore, build_store
from instrlib.data.taxonomy import FAMILIES, common_classes, common_name

VARIABLE = "INSTRLIB_CORPORA"
"""Names corpora beside the study's own: "fsdkaggle2018=/sound/FSD:folder=/sound/mine", as PATH separates folders."""

_CHANCE = 1e-3
"""Share of a soundfont's sound that may stand in another by chance: simple waves are alike in all."""

_FEWEST = 2
"""Classes that two domains must have in common: of one alone, every answer among the common ones is right."""


@dataclass(frozen=True)
class Domain:
    """One sound world.

    Attributes
    ----------
    name : str
        Its own among all domains of a study; tables and folders call it so.
    label : str
        A short name for figures.
    corpus : Corpus
        The clips.
    store : FeatureStore
        Their features, of the same settings for all domains of a study.
    splits : tuple of Path
        One split, or of the study's own corpus those of a cross-validation; none where the corpus is too small to be
        trained on: then it is only tested on.
    common : dict of str to str
        Common name by class; classes without one are left out. See `corpora.names`.
    fonts : frozenset of str
        The soundfonts that play in it; none where it was recorded.
    """

    name: str
    label: str
    corpus: Corpus
    store: FeatureStore
    splits: tuple[Path, ...]
    common: dict[str, str]
    fonts: frozenset[str]


@dataclass(frozen=True)
class Common:
    """The classes that two domains have in common.

    Attributes
    ----------
    names : tuple of str
        What they are called, sorted.
    of_source, of_target : np.ndarray of int [shape=(n_classes of that domain,)]
        Place in `names` of each class, -1 for a class without a counterpart. Where one domain tells apart what is one
        class of the other, as acoustic and electric guitars, both have the same place.
    """

    names: tuple[str, ...]
    of_source: np.ndarray
    of_target: np.ndarray


def at_hand(
    corpus: Corpus,
    inputs: Inputs,
    *,
    profile: Profile,
    clips_per_class: int,
    folder: Path,
    seed: int = 0,
    workers: int | None = None,
) -> tuple[list[Domain], list[str]]:
    """Open all domains on this machine: their clips, features and splits; what is missing is made.

    They are the study's own corpus; `rendered` by each soundfont alone, which plays other phrases than the rest; the
    corpora that the environment variable `INSTRLIB_CORPORA` names; and those that lie whole below the data folder,
    each under its own name. All but the study's own are split once.

    Parameters
    ----------
    corpus : Corpus
        The study's own.
    inputs : Inputs
        Its features and splits, as notebook 01 handed them on. All domains get the settings of these features.
    profile : Profile
        The study's.
    clips_per_class : int
        Cap for all domains but the study's own.
    folder : Path
        Where the splits are kept.
    seed : int
        Of what is rendered, of the draws of clips and of the splits.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    domains : list of Domain
        The study's own comes first.
    left_out : list of str
        A sentence on each that cannot be used, or not be trained on.

    Raises
    ------
    ConfigError
        When the study's own corpus has several instruments a clip, or `INSTRLIB_CORPORA` cannot be understood.
    CorpusError
        When a corpus that it names is not whole.
    LeakError
        When a corpus that it names holds a recording of a domain before it.
    """
    if corpus.multilabel:
        raise ConfigError(f"{corpus.name} has several instruments a clip; domains are compared by one class a clip.")
    config = inputs.store.config
    smaller = dataclasses.replace(profile, clips_per_class=clips_per_class, max_clips_per_class=clips_per_class)
    found, left_out = [_own(corpus, inputs)], []
    for font in sorted(soundfont.fonts()):
        if found[0].fonts == {font}:
            continue
        given = {"clips_per_class": clips_per_class, "seed": seed, "players": rendered.Players((font,))}
        clips = rendered.load(folders().data / "rendered", **given, workers=workers)
        found.append(_open(f"rendered by {font}", font, clips, frozenset({font}), config, workers))
    for name, root, named in _places():
        try:
            clips = corpora.load(name, data=root, profile=smaller, seed=seed)
            if _is_known(clips, found):
                continue
            if clips.multilabel:
                left_out.append(f"{name} is left out: its clips have several instruments, so no one answer is right.")
                continue
            title = _free_name(name if name != "folder" else f"folder {root.name}", found)
            shared = _shared_recording(title, clips, found)
            if shared and named:
                raise LeakError(f"{shared}; take it out of one of them, or leave that corpus out of {VARIABLE}.")
            if shared:
                left_out.append(f"{name} is left out: {shared}.")
                continue
            found.append(_open(title, title, clips, frozenset(), config, workers))
        except (ConfigError, CorpusError, StoreError) as error:
            if named:
                raise
            left_out.append(f"{name} is left out: {error}")
    domains = []
    for domain in found:
        try:
            splits = domain.splits or _split(domain, folder, seed)
        except SplitError as error:
            splits = ()
            left_out.append(f"{domain.label} is tested on, but not trained on: {error}")
        domains.append(dataclasses.replace(domain, splits=splits))
    return domains, left_out


def on_this_machine() -> dict[str, str]:
    """Tell what `at_hand` would find besides the study's own corpus, without opening it.

    Returns
    -------
    dict of str to str
        A hash by name: of a font's bytes; of the names, sizes and times of the files of a corpus. When one changes, a
        comparison of domains is out of date.

    Raises
    ------
    ConfigError
        When `INSTRLIB_CORPORA` cannot be understood.
    """
    fonts = {name: soundfont.font_hash(path) for name, path in sorted(soundfont.fonts().items())}
    return fonts | {f"{name} in {root}": hash_tree(root) for name, root, _ in _places()}


def pairs(domains: Sequence[Domain]) -> tuple[list[tuple[Domain, Domain]], list[str]]:
    """Say which domain can be tested by the networks of which.

    Parameters
    ----------
    domains : sequence of Domain
        From `at_hand`.

    Returns
    -------
    pairs : list of (Domain, Domain)
        Trained on, tested on; two different ones, ordered.
    left_out : list of str
        A sentence on each two that are not compared: with fewer than two classes in common, or with the same soundfont
        or two that borrowed from each other, whose samples the network would know.
    """
    kept, left_out = set(), []
    for first, second in combinations(domains, 2):
        names = in_common(first, second).names
        if shared := _shared_sounds(first.fonts, second.fonts):
            left_out.append(f"{first.label} and {second.label} share sounds of {listed(shared)}.")
        elif len(names) < _FEWEST:
            told = f"only {names[0]}" if names else "no class"
            left_out.append(f"{first.label} and {second.label} have {told} in common.")
        else:
            kept |= {(first.name, second.name), (second.name, first.name)}
    both = [(one, other) for one in domains for other in domains if (one.name, other.name) in kept and one.splits]
    return both, left_out


def in_common(source: Domain, target: Domain) -> Common:
    """Find the classes that two domains have in common; of a domain with itself, all of its classes.

    Parameters
    ----------
    source, target : Domain
        Where the answers come from, and where the clips.

    Returns
    -------
    Common
    """
    given, asked = source.store.classes, target.store.classes
    if source.name == target.name:
        place = np.arange(len(given))
        return Common(given, place, place)
    both = (source.corpus.name, given), (target.corpus.name, asked)
    there, back = (
        common_classes(one, other, classes_a=own, classes_b=others)
        for (one, own), (other, others) in (both, both[::-1])
    )
    joined: list[tuple[set[str], set[str]]] = []
    for one, other in [*there.items(), *((label, match) for match, label in back.items())]:
        touched = [pair for pair in joined if one in pair[0] or other in pair[1]]
        joined = [pair for pair in joined if pair not in touched]
        joined.append(({one}.union(*(pair[0] for pair in touched)), {other}.union(*(pair[1] for pair in touched))))
    named = sorted((_shared_name(source, target, *pair), *pair) for pair in joined)
    places = [
        np.array([next((at for at, pair in enumerate(named) if label in pair[side]), -1) for label in labels])
        for side, labels in ((1, given), (2, asked))
    ]
    return Common(tuple(name for name, *_ in named), *places)


def unheard(domains: Sequence[Domain]) -> list[Domain]:
    """Return the domains that share no sound with the first, the study's own.

    Parameters
    ----------
    domains : sequence of Domain
        From `at_hand`.

    Returns
    -------
    list of Domain
    """
    own = domains[0]
    return [domain for domain in domains[1:] if not _shared_sounds(domain.fonts, own.fonts)]


def overview(domains: Sequence[Domain]) -> pd.DataFrame:
    """Return a table of domains: `known instruments`, `clips`, `groups` and `splits` of each."""
    rows = [
        (len(one.common), len(one.store.clips), one.store.clips.group.nunique(), len(one.splits)) for one in domains
    ]
    names = pd.Index([one.label for one in domains], name="domain")
    return pd.DataFrame(rows, columns=["known instruments", "clips", "groups", "splits"], index=names)


# -- parts -------------------------------------------------------------------------------------------------------------


def _own(corpus: Corpus, inputs: Inputs) -> Domain:
    """Return the study's own domain."""
    fonts = frozenset(corpus.manifest.font) if corpus.name == "rendered" else frozenset()
    return Domain(
        corpus.name, corpus.name, corpus, inputs.store, inputs.splits, _names(corpus, inputs.store.classes), fonts
    )


def _open(
    name: str, label: str, corpus: Corpus, fonts: frozenset[str], config: FeatureConfig, workers: int | None
) -> Domain:
    """Return a domain whose splits are still to be made."""
    store = build_store(corpus, config, root=folders().data / "features", workers=workers)
    return Domain(name, label, corpus, store, (), _names(corpus, store.classes), fonts)


def _split(domain: Domain, folder: Path, seed: int) -> tuple[Path, ...]:
    split = make_split(domain.store.clips, seed=seed)
    return tuple(save_splits([split], folder / "splits" / slug(domain.name)))


def _names(corpus: Corpus, classes: Sequence[str]) -> dict[str, str]:
    found = {label: common_name(corpus.name, label) for label in classes}
    return {label: name for label, name in found.items() if name is not None}


def _shared_name(source: Domain, target: Domain, own: set[str], others: set[str]) -> str:
    """Return the name of a class in common: that of the domain that knows but one such class, or the wider one."""
    sides = [sorted({domain.common[label] for label in labels}) for domain, labels in ((source, own), (target, others))]
    _, _, name = min((len(names), names[0] not in FAMILIES, " or ".join(names)) for names in sides)
    return name


def _shared_sounds(first: frozenset[str], second: frozenset[str]) -> list[str]:
    """Return the soundfonts of the first of which a recording stands in one of the second too."""
    places = soundfont.fonts()

    def borrow(name: str, other: str) -> bool:
        both_there = name in places and other in places
        return name == other or (both_there and soundfont.shared_samples(places[name], places[other]) > _CHANCE)

    return [name for name in sorted(first) if any(borrow(name, other) for other in second)]


def _is_known(corpus: Corpus, domains: Sequence[Domain]) -> bool:
    """Whether a corpus is there already: the same clips, or others drawn from the same folder."""
    return any(
        corpus.fingerprint == one.corpus.fingerprint
        or (corpus.name == one.corpus.name and corpus.root.resolve() == one.corpus.root.resolve())
        for one in domains
    )


def _shared_recording(name: str, corpus: Corpus, domains: Sequence[Domain]) -> str:
    """Say which recording of a corpus stands in one of some domains, too; "" when none does.

    Files count as the same when their bytes are; rendered clips are no files of anybody's.
    """
    for one in domains:
        sides = [one.corpus.manifest, corpus.manifest]
        if all(CONTENT in side for side in sides) and (same := set(sides[0][CONTENT]) & set(sides[1][CONTENT])):
            first, second = (side.path[side[CONTENT] == min(same)].iloc[0] for side in sides)
            return (
                f"{first} of {one.label} and {second} of {name} are the same recording, so what is learned in one "
                "would be tested in the other"
            )
    return ""


def _free_name(wanted: str, domains: Sequence[Domain]) -> str:
    """Return a name whose trainings have a place of their own; several names can have the same."""
    taken = {slug(domain.name) for domain in domains}
    numbered = (wanted, *(f"{wanted} {number}" for number in range(2, len(taken) + 3)))
    return next(name for name in numbered if slug(name) not in taken)


def _places() -> Iterator[tuple[str, Path, bool]]:
    """Yield name and folder of every corpus at hand, and whether it was named in the variable."""
    for entry in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(os.pathsep))):
        name, equals, place = (part.strip() for part in entry.partition("="))
        if not (name and equals and place):
            raise ConfigError(
                f'{VARIABLE} has the entry {entry!r}, which is not "name=folder"; write "fsdkaggle2018=/sound/FSD", '
                f'with "{os.pathsep}" between two.'
            )
        known = [one for one in corpora.NAMES if one != "rendered"]
        if name not in known:
            raise ConfigError(f"{VARIABLE} names the unknown corpus {name!r}; there is: {', '.join(known)}.")
        root = whole(place, VARIABLE)
        if not root.is_dir():
            raise ConfigError(f"{VARIABLE} names {root} for {name}, and no such folder is there; correct the path.")
        yield name, root, True
    for name in corpora.NAMES:
        root = folders().data / name
        if name not in ("rendered", "folder") and _holds_audio(root):
            yield name, root, False


def _holds_audio(root: Path) -> bool:
    return any(True for _ in walk_audio(root))
