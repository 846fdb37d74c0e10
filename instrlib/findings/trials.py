"""What the log of recipes says."""

import pandas as pd

from instrlib.core.words import listed
from instrlib.studies.trials import EVERYDAY, JUDGE


def trial_sentences(log: pd.DataFrame, winner: str) -> list[str]:
    """Put into words what closed the gap, and how far.

    Parameters
    ----------
    log : pandas.DataFrame
        From `trials.read_log`: the first recipe is the simplest.
    winner : str
        The recipe that was chosen.

    Returns
    -------
    list of str
    """
    table = log.set_index("trial")
    first, best = table.iloc[0], table.loc[winner]
    said = [
        f"Of {len(log)} recipes for training on rendered sounds, {JUDGE}, which plays none of the sounds that are "
        f"trained on, is best named by “{winner}”: {best.judged:.2f}, the mean of {best[JUDGE]:.2f} on clean clips and "
        f"{best[EVERYDAY]:.2f} in everyday recordings of them, instead of {first.judged:.2f} for the simplest. It was "
        "picked by this score, so the score is flattered."
    ]
    half = (best[f"{JUDGE}_high"] - best[f"{JUDGE}_low"]) / 2
    ordered = table.judged.drop(winner).sort_values(ascending=False)
    close = ordered.index[ordered > best.judged - half]
    if len(close):
        said.append(f"Within half of its interval below it: {listed(f'“{name}”' for name in close)}.")
    for name in _recorded(log):
        said.append(
            f"On {name}, of which nothing was trained on and nothing chosen, it reaches {best[name]:.2f} "
            f"[{best[f'{name}_low']:.2f}, {best[f'{name}_high']:.2f}] instead of {first[name]:.2f}; the highest of all "
            f"recipes there is {table[name].max():.2f} (“{table[name].idxmax()}”)."
        )
        said.append(_adapted(table, name))
    return said


def _recorded(log: pd.DataFrame) -> list[str]:
    """Return the domains of the log that are no part of any choice."""
    known = ("own test part", JUDGE, EVERYDAY)
    return [
        name.removesuffix("_low") for name in log if name.endswith("_low") and name.removesuffix("_low") not in known
    ]


def _adapted(table: pd.DataFrame, name: str) -> str:
    higher = int((table[f"{name}_adapted"] > table[name]).sum())
    return (
        f"Batch normalisation adapted to the unlabelled clips of {name} raises the score in {higher} of {len(table)} "
        f"recipes; the mean change is {(table[f'{name}_adapted'] - table[name]).mean():+.2f}."
    )
