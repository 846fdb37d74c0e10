"""What learning on from another sound world gives."""

from instrlib.core.words import listed
from instrlib.evaluation.intervals import Interval, corrected, is_shown
from instrlib.models.finetune import CHOSEN
from instrlib.models.transfer import SCRATCH
from instrlib.studies.tuning import Tuning


def tuning_sentences(found: Tuning) -> list[str]:
    """Say whether pretraining helps a network against the same one from scratch, and how it stands against probes.

    Parameters
    ----------
    found : Tuning
        From `tuning.study`.

    Returns
    -------
    list of str
        Two sentences; one that says why where nothing was tuned.
    """
    return [_pretraining(found), _rivals(found)] if found.target else [found.about]


def _pretraining(found: Tuning) -> str:
    row = found.compared.loc[(CHOSEN, SCRATCH)]
    verdict = ("helps" if row.difference > 0 else "does harm") if is_shown(row.p_holm) else "is not shown to help"
    return (
        f"Pretraining on {found.source} {verdict}: fine-tuned the network reaches {_reached(found, CHOSEN)} on "
        f"{found.target}, from scratch, on the same clips and with the same epochs and augmentation, "
        f"{_reached(found, SCRATCH)} ({corrected(row)} after Holm's correction for {len(found.compared)} comparisons)."
    )


def _rivals(found: Tuning) -> str:
    said = []
    for first, rival in found.compared.index:
        if first != CHOSEN or rival == SCRATCH:
            continue
        row = found.compared.loc[(first, rival)]
        shown = is_shown(row.p_holm)
        verdict = "not shown to differ from" if not shown else "better than" if row.difference > 0 else "worse than"
        said.append(f"{verdict} “{rival}” ({_reached(found, rival)}; {corrected(row)})")
    return f"The fine-tuned network is {listed(said)}."


def _reached(found: Tuning, model: str) -> Interval:
    row = found.scores[found.scores.score == "accuracy"].set_index("model").loc[model]
    return Interval(row.estimate, row.low, row.high)
