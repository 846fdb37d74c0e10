"""Pretraining on what soundfonts play, then learning on: which sound worlds, and what it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from instrlib.core.config import TrainConfig
from instrlib.data.inputs import Inputs
from instrlib.evaluation import statistics
from instrlib.models import finetune
from instrlib.models.answers import trivial_baselines
from instrlib.models.transfer import SCRATCH
from instrlib.models.variants import Outcome, answers, describe
from instrlib.studies.domains import Domain, unheard


@dataclass(frozen=True)
class Tuning:
    """What a network reaches that learned on from one sound world in another.

    Attributes
    ----------
    source, target : str
        Labels of what it was pretrained on and what it was tuned on; "" where no two such worlds are at hand. Then all
        tables are empty.
    described : pandas.DataFrame
        See `variants.describe`.
    scores : pandas.DataFrame
        Columns `model`, `score`, `estimate`, `low` and `high`; see `evaluation.compare_models`.
    compared : pandas.DataFrame
        See `finetune.compare`.
    kinds : dict of str to str
        What each model is: "trivial", "trained here" or "probe".
    """

    source: str
    target: str
    described: pd.DataFrame
    scores: pd.DataFrame
    compared: pd.DataFrame
    kinds: dict[str, str]

    @property
    def about(self) -> str:
        """A sentence on what was done, or why nothing was."""
        if self.target:
            return f"Pretrained on {self.source}, tuned on {self.target}."
        return (
            "No recordings are at hand to learn on, and no soundfont of which the pretrained network knows no sound: "
            "what pretraining is worth was not tried."
        )


NOTHING = Tuning(
    "",
    "",
    pd.DataFrame(),
    pd.DataFrame(columns=["model", "score", "estimate", "low", "high"]),
    pd.DataFrame(columns=["difference", "low", "high", "p", "p_holm"]),
    {},
)
"""What there is where nothing can be tuned on."""


def choose_pair(found: Sequence[Domain]) -> tuple[Domain, Domain] | None:
    """Choose what a network is pretrained on, played by soundfonts, and what it is tuned on, which shares no sound.

    Parameters
    ----------
    found : sequence of Domain
        From `domains.at_hand`: the study's own comes first.

    Returns
    -------
    pretrained_on, tuned_on : Domain
        Tuned on are recordings, the study's own before others; where none can be trained on, what a foreign soundfont
        plays. Pretrained on is the study's own, or else the first that soundfonts play. None where no two such domains
        can both be trained on.
    """
    usable = [domain for domain in found if domain.splits]
    able = [
        (source, target)
        for source in usable
        if source.fonts
        for target in unheard([source, *(other for other in usable if other is not source)])
    ]
    order = [domain.name for domain in found]

    def rank(pair: tuple[Domain, Domain]) -> tuple[bool, int, int]:
        return bool(pair[1].fonts), order.index(pair[0].name), order.index(pair[1].name)

    return min(able, key=rank, default=None)


def study(
    folder: Path,
    worlds: Sequence[Domain],
    outcomes: Mapping[str, Outcome],
    config: TrainConfig,
    *,
    seeds: Sequence[int],
    n_resamples: int,
    root: Path,
    workers: int | None = None,
) -> Tuning:
    """Tune a network, beside the same one from scratch, probes and trivial answers, and compare them.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; a training that is there already is kept.
    worlds : sequence of Domain
        From `domains.at_hand`.
    outcomes : dict of str to Outcome
        The networks of each of them, by name; see `domain_study.train`. The first of its world is tuned.
    config : TrainConfig
        How all are trained.
    seeds : sequence of int
        A network for each, on every split.
    n_resamples : int
        Of the bootstraps over groups and seeds.
    root : Path
        Folder of all feature stores.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Tuning
        `NOTHING` where no two worlds fit.
    """
    pair = choose_pair(worlds)
    if pair is None:
        return NOTHING
    source, target = pair
    pretrained, inputs = outcomes[source.name].folders[0][0], Inputs(target.store, target.splits, target.name)
    trained = finetune.tune(folder, pretrained, inputs, config, seeds=seeds, workers=workers)
    probes = finetune.probes(folder, pretrained, target.corpus, inputs, seeds=seeds, root=root, workers=workers)
    learned = answers(trained) | probes
    trivial = trivial_baselines(target.store, target.splits, seed=0)
    return Tuning(
        source.label,
        target.label,
        describe(trained),
        statistics.score_table(trivial | learned, n_resamples=n_resamples, seed=0),
        finetune.compare(learned, n_resamples=n_resamples, seed=0),
        dict.fromkeys(trivial, "trivial") | dict.fromkeys(trained, "trained here") | dict.fromkeys(probes, "probe"),
    )


def figure_arrays(found: Tuning) -> dict[str, Any]:
    """Return the arguments of `plots.scores_by_kind`; of a study in which something was tuned."""
    main = found.scores[found.scores.score == "accuracy"]
    return {
        "names": main.model.to_list(),
        "kinds": [found.kinds[name] for name in main.model],
        "scores": main.estimate.to_numpy(),
        "low": main.low.to_numpy(),
        "high": main.high.to_numpy(),
        "reference": SCRATCH,
    }
