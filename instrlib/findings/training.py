"""What the trainings say: epochs, variants and published networks beside ours."""

from collections.abc import Sequence

import pandas as pd

from instrlib.core.words import listed


def epochs_sentence(described: pd.DataFrame, names: Sequence[str]) -> str:
    """Say of some variants whether they were still getting better on validation when the training ended.

    Parameters
    ----------
    described : pandas.DataFrame
        What `experiments.describe` gives.
    names : sequence of str
        The variants.

    Returns
    -------
    str
    """
    rows = described.loc[list(names)]
    late = [
        f"{row.n_late:.0f} of {row.n_trained:.0f} trainings of {name}" for name, row in rows.iterrows() if row.n_late
    ]
    numbers = listed(f"{name} at epoch {row.best_epoch:.1f} of {row.epochs:.0f}" for name, row in rows.iterrows())
    verdict = (
        f"In the last tenth of their epochs {listed(late)} were still improving: more epochs may change the result, "
        "which was not tried"
        if late
        else "No training was still improving in the last tenth of its epochs"
    )
    return f"Best on validation was, on average, {numbers}. {verdict}."
