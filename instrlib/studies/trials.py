"""How to train on rendered sounds for recordings: what was tried, one change at a time, and what each thing gave.

No recording takes part in any choice. A soundfont that shares no sample with those that are trained on is the domain
that recipes are chosen on, half as it is and half in rooms, noise and codecs of every day: what is clean alone would
choose what holds on clean sounds. Recordings, where any are at hand, are a test, read once for each recipe.
The log is long work, hours for all recipes, so it is written by a command of its own and committed.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from instrlib.audio.effects import EverydayRecordings
from instrlib.core.cache import code_hash, commit, versions
from instrlib.core.config import FOR_RECORDINGS, AugmentConfig, FeatureConfig, Profile, TrainConfig, folders
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.core.io import read_json, write_json
from instrlib.data import rendered
from instrlib.data.inputs import Inputs
from instrlib.data.splits import fingerprint_of, load_split, make_split, save_splits
from instrlib.data.store import build_store
from instrlib.models.layers import Layer, get_spec, widen
from instrlib.models.trained import part_segments, summary
from instrlib.studies import domain_study, domains
from instrlib.studies.domain_study import Answered

JUDGE = "FluidR3_GM"
"""The soundfont that recipes are chosen on: it shares no sample with those that are trained on."""

EVERYDAY = f"{JUDGE}, every day"
"""The same clips, each in a worse recording; see `effects.EverydayRecordings`."""

JUDGE_CLIPS = 60
"""Clips of each class that it plays."""


@dataclass(frozen=True)
class Trial:
    """One recipe.

    Attributes
    ----------
    name : str
        What tables call it.
    change : str
        What it changes, and against which recipe.
    players : rendered.Players
        Which soundfonts play, and what.
    clips_per_class : int
        How many clips there are; three in five are trained on.
    features : FeatureConfig
        What the network sees.
    spec : str or tuple of Layer
        The network.
    config : TrainConfig
        How it is trained; the epochs are as many as bring all recipes of one comparison to about as many examples.
    """

    name: str
    change: str
    players: rendered.Players = rendered.PLAYERS
    clips_per_class: int = 400
    features: FeatureConfig = field(default_factory=lambda: FeatureConfig(hop_length=1024))
    spec: str | tuple[Layer, ...] = "compact"
    config: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, patience=10, batch_size=32))


def _trials() -> tuple[Trial, ...]:
    """Return all recipes, each after those that it builds on."""
    many = Trial("two fonts, exercises, 400 clips", "400 clips a class, 10 epochs")
    few = dataclasses.replace(many, clips_per_class=60, config=dataclasses.replace(many.config, epochs=67, patience=67))
    one = rendered.Players(("TimGM6mb",), 0.0)

    def but(name: str, change: str, **changes: Any) -> Trial:
        return dataclasses.replace(many, name=name, change=f"{many.name}, but {change}", **changes)

    def trained(**changes: Any) -> TrainConfig:
        return dataclasses.replace(many.config, **changes)

    return (
        dataclasses.replace(few, name="simple", change="TimGM6mb, phrases, 60 clips a class, 67 epochs", players=one),
        dataclasses.replace(
            few, name="exercises", change="simple, but half the clips are exercises",
            players=dataclasses.replace(one, exercises=rendered.PLAYERS.exercises),
        ),
        dataclasses.replace(
            few, name="two fonts", change="simple, but Merlin plays every other clip",
            players=dataclasses.replace(rendered.PLAYERS, exercises=0.0),
        ),
        dataclasses.replace(few, name="two fonts, exercises", change="simple, with both changes"),
        many,
        but("other takes", "seven in ten examples are heard in other recordings",
            config=trained(augment=AugmentConfig(retake=0.7))),
        but("label smoothing", "targets are smoothed by .1", config=trained(label_smoothing=0.1)),
        but("CutMix", "half of the batches are mixed", config=trained(augment=AugmentConfig(mix="cutmix", share=0.5))),
        but("SpecAugment", "two stripes over time and two over frequency", config=trained(augment=AugmentConfig(
            time_masks=2, time_mask_s=0.3, frequency_masks=2, frequency_mask_bins=8))),
        but("twice as wide", "twice the filters in every row", spec=widen(get_spec("compact"), 2)),
        but("small network", "the network of the comparisons", spec="small"),
        but("128 bands", "128 mel bands", features=dataclasses.replace(many.features, n_mels=128)),
        but("PCEN", "per-channel energy normalisation", features=dataclasses.replace(many.features, kind="pcen")),
        but("1000 clips", "1000 clips a class, 4 epochs", clips_per_class=1000, config=trained(epochs=4, patience=4)),
        but("three times as long", "30 epochs", config=trained(epochs=30, patience=30)),
        but("takes and CutMix", "other takes and CutMix, each for half", config=trained(augment=FOR_RECORDINGS)),
        but("takes, CutMix, three times as long", "both, 30 epochs",
            config=trained(epochs=30, patience=30, augment=FOR_RECORDINGS)),
        but("takes, CutMix, 1000 clips", "both, 1000 clips a class, 12 epochs", clips_per_class=1000,
            config=trained(epochs=12, patience=12, augment=FOR_RECORDINGS)),
        but("everything", "both, 1000 clips a class, 12 epochs, twice as wide", clips_per_class=1000,
            spec=widen(get_spec("compact"), 2), config=trained(epochs=12, patience=12, augment=FOR_RECORDINGS)),
        but("takes, CutMix, 3000 clips", "both, 3000 clips a class, 12 epochs", clips_per_class=3000,
            config=trained(epochs=12, patience=12, augment=FOR_RECORDINGS)),
    )  # fmt: skip


TRIALS = _trials()


def chosen(names: Sequence[str] | None) -> tuple[Trial, ...]:
    """Return recipes by name, or all.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    by_name = {trial.name: trial for trial in TRIALS}
    unknown = sorted(set(names or ()) - set(by_name))
    if unknown:
        raise ConfigError(f"There is no recipe {unknown[0]!r}; there is: {', '.join(by_name)}.")
    return tuple(by_name[name] for name in names) if names else TRIALS


def hear(
    trial: Trial, folder: Path, *, profile: Profile, seeds: Sequence[int], workers: int | None = None
) -> list[Answered]:
    """Train a recipe, and let its networks answer the judge and the recordings at hand.

    Parameters
    ----------
    trial : Trial
        The recipe.
    folder : Path
        Where its runs are kept: heard again, nothing is computed.
    profile : Profile
        Caps the corpora from disk.
    seeds : sequence of int
        A network for each.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    list of Answered
        Its own test part first, then the domains that share no sound with it.

    Raises
    ------
    CorpusError
        When the judge is not installed.
    """
    corpus = rendered.load(
        folders().data / "rendered", clips_per_class=trial.clips_per_class, players=trial.players, workers=workers
    )
    store = build_store(corpus, trial.features, root=folders().data / "features", workers=workers)
    split = make_split(store.clips, seed=0)
    inputs = Inputs(store, tuple(save_splits([split], folder / "splits")), fingerprint_of([split]))
    worlds, _ = domains.at_hand(
        corpus, inputs, profile=profile, clips_per_class=JUDGE_CLIPS, folder=folder, workers=workers
    )
    judge = next((world for world in worlds if world.fonts == {JUDGE}), None)
    if judge is None:
        raise CorpusError(f"Recipes are judged by the soundfont {JUDGE}, which is missing; install fluid-soundfont-gm.")
    worse = build_store(
        judge.corpus, trial.features, root=folders().data / "features", workers=workers, change=EverydayRecordings()
    )
    worlds.append(dataclasses.replace(judge, name=EVERYDAY, label=EVERYDAY, store=worse, splits=()))
    trained = domain_study.train(folder, worlds[:1], trial.spec, trial.config, seeds=seeds, workers=workers)
    return domain_study.answer(folder, worlds, trained, workers=workers)


def row(trial: Trial, answered: Sequence[Answered], *, n_resamples: int) -> dict[str, Any]:
    """Score a recipe.

    Parameters
    ----------
    trial : Trial
        The recipe.
    answered : sequence of Answered
        From `hear`.
    n_resamples : int
        Of the bootstraps over groups and networks.

    Returns
    -------
    dict
        `trial`, `change`, `examples` (seen in training), `parameters`, `judged` (the mean of the judge's scores, clean
        and every day), and for each domain `<label>`, `<label>_low` and
        `<label>_high`: balanced accuracy among all twelve classes; `<label>_adapted`, that of networks whose batch
        normalisation was adapted to its clips.
    """
    own = answered[0]
    store = own.source.store
    n_trained = len(part_segments(store, load_split(own.source.splits[0], store.segments), "train"))
    found: dict[str, Any] = {
        "trial": trial.name,
        "change": trial.change,
        "examples": n_trained * trial.config.epochs,
        "parameters": summary(own.runs[0])["parameters"],
    }
    table = domain_study.matrix(answered, n_resamples=n_resamples)
    for one in table.to_dict("records"):
        name = "own test part" if one["tested_on"] == one["trained_on"] else one["tested_on"]
        found |= {name: one["balanced_accuracy"]}
        found |= {f"{name}_{end}": one[f"balanced_accuracy_{end}"] for end in ("low", "high")}
    for one in domain_study.adaptation(answered, n_resamples=n_resamples).to_dict("records"):
        found[f"{one['tested_on']}_adapted"] = one["adapted"]
    return found | {"judged": (found[JUDGE] + found[EVERYDAY]) / 2}


def log_path() -> Path:
    """Return where the log is committed: beside the notebook that shows it."""
    return folders().notebooks / "13_trials.json"


def write_log(rows: Sequence[dict[str, Any]], *, seeds: Sequence[int]) -> None:
    """Write the log, with what made it.

    Parameters
    ----------
    rows : sequence of dict
        From `row`.
    seeds : sequence of int
        Those of every recipe.
    """
    made_by = {"commit": commit(), "code": code_hash("studies")}
    write_json(
        log_path(), {"judge": JUDGE, "seeds": list(seeds), **made_by, "versions": versions(), "trials": list(rows)}
    )


def read_log() -> pd.DataFrame:
    """Read the committed log.

    Returns
    -------
    pandas.DataFrame
        One row a recipe, in the order of `TRIALS`; see `row`. The columns of a domain that was not at hand are missing.

    Raises
    ------
    InstrlibError
        When there is none.
    """
    return pd.DataFrame(read_json(log_path())["trials"])


def winner(log: pd.DataFrame) -> str:
    """Return the name of the recipe that the judge prefers, clean and every day alike; recordings have no say in it."""
    return str(log.trial[log.judged.idxmax()])


def figure_arrays(log: pd.DataFrame) -> dict[str, Any]:
    """Arrange the log for `plots.recipes_by_domain`."""
    names = [name.removesuffix("_low") for name in log if name.endswith("_low")]
    ends = {end: log[[f"{name}_{end}" for name in names]].to_numpy() for end in ("low", "high")}
    chosen_row = int(log.index[log.trial == winner(log)][0])
    return {
        "names": log.trial.to_list(),
        "domains": names,
        "scores": log[names].to_numpy(),
        **ends,
        "chosen": chosen_row,
    }
