"""How small and fast a network gets, at what loss."""

import numpy as np
import pandas as pd

from instrlib.core.words import listed
from instrlib.evaluation.intervals import Difference


def sparsity_sentence(networks: pd.DataFrame, compared: pd.DataFrame, max_loss: float) -> str:
    """Say how far a network can be pruned, step by step, before it loses more than is allowed.

    Parameters
    ----------
    networks : pandas.DataFrame
        See `pruning.Plan.networks`.
    compared : pandas.DataFrame
        What `statistics.compare` gives, against the dense network.
    max_loss : float
        Accuracy that may be lost.

    Returns
    -------
    str

    Notes
    -----
    It stops at the first sparsity that loses more. In such a fixed order the intervals need no correction for their
    number.
    """
    table = networks[networks.kind == "progressive"].join(compared).sort_values("sparsity")
    numbers = "; ".join(
        f"{row.sparsity:.0%} {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in table.itertuples()
    )
    points = f"{100 * max_loss:g} point"
    shown, seen = (table[(ends >= -max_loss).cummin()] for ends in (table.low, table.difference))
    if len(shown):
        verdict = f"Up to {shown.sparsity.max():.0%} of zeros it is shown to lose no more than {points}"
    elif len(seen):
        verdict = (
            f"Up to {seen.sparsity.max():.0%} of zeros it loses no more than {points} on these clips, which the "
            "interval does not confirm"
        )
    else:
        verdict = f"Already with {table.sparsity.min():.0%} of zeros it loses more than {points} on these clips"
    return f"Pruned progressively, against the dense network ({numbers}). {verdict}.".replace("%", " %")


def zeros_sentence(dense: pd.Series, pruned: pd.Series) -> str:
    """Say what the zeros of a pruned network save, and what they do not.

    Parameters
    ----------
    dense, pruned : pandas.Series
        Two networks in the same format: their rows of `tflite.describe` and `tflite.measure`, joined.

    Returns
    -------
    str
    """
    kb, zipped_kb = (
        f"{pruned[name] / 1000:.1f} kB (dense {dense[name] / 1000:.1f})" for name in ("bytes", "compressed_bytes")
    )
    if _is_faster(pruned, dense):
        verdict = "yet on this machine it was even measured faster"
    elif _is_faster(dense, pruned):
        verdict = "and on this machine it was even measured slower"
    else:
        verdict = "and on this machine it is no faster"
    sentence = (
        f"Zeros make the file smaller only when it is compressed: {pruned.network} ({pruned.format}) has {kb}, "
        f"compressed {zipped_kb}. The runtime multiplies by zero as by any other number, "
        f"{pruned.multiply_adds / 1e6:.1f} million multiply-adds though {pruned.nonzero_multiply_adds / 1e6:.1f} "
        f"million would do, {verdict}: {pruned.latency_ms:.2f} ms for a segment (dense {dense.latency_ms:.2f})"
    )
    if np.isfinite([pruned.peak_memory_kb, dense.peak_memory_kb]).all():
        # Memory is counted in kB of 1024 bytes, files in those of 1000.
        own_mb, dense_mb = (1.024 * row.peak_memory_kb / 1000 for row in (pruned, dense))
        sentence += f", with {own_mb:.1f} MB of memory (dense {dense_mb:.1f})"
    return f"{sentence}."


def narrower_sentence(networks: pd.DataFrame, costs: pd.DataFrame, *, kind: str) -> str:
    """Say what narrower networks cost beside pruned ones with about as many weights.

    Parameters
    ----------
    networks : pandas.DataFrame
        See `pruning.Plan.networks`.
    costs : pandas.DataFrame
        What `tflite.describe` and `tflite.measure` give, joined.
    kind : str
        The format, one of `tflite.FORMATS`.

    Returns
    -------
    str
    """
    rows = costs[costs.format == kind].join(networks, on="network").set_index(["kind", "sparsity"])
    narrow, pruned = rows.loc["narrower"], rows.loc["progressive"]
    pairs = [(narrow.loc[one], pruned.loc[one]) for one in narrow.index.intersection(pruned.index)]
    wins = {
        "smaller": all(one.bytes < other.bytes for one, other in pairs),
        "smaller when compressed": all(one.compressed_bytes < other.compressed_bytes for one, other in pairs),
        "faster": all(_is_faster(one, other) for one, other in pairs),
    }
    won, lost = ([words for words, always in wins.items() if always is wanted] for wanted in (True, False))
    verdict = " but ".join(([listed(won)] if won else []) + ([f"not always {' or '.join(lost)}"] if lost else []))
    numbers = "; ".join(
        f"“{one.network}” {one.bytes / 1000:.1f} kB, compressed {one.compressed_bytes / 1000:.1f}, "
        f"{one.latency_ms:.2f} ms, “{other.network}” {other.bytes / 1000:.1f} kB, compressed "
        f"{other.compressed_bytes / 1000:.1f}, {other.latency_ms:.2f} ms"
        for one, other in pairs
    )
    return f"Beside a pruned network with as many weights, the narrower one is {verdict} ({kind}): {numbers}."


def goal_sentence(
    chosen: pd.DataFrame,
    difference: Difference,
    *,
    max_bytes: int,
    max_multiply_adds: int,
    max_loss: float,
) -> str:
    """Say whether the network that validation chose is small enough and as good as the dense one.

    Parameters
    ----------
    chosen : pandas.DataFrame
        What `tflite.choose` gives.
    difference : Difference
        Its test accuracy minus that of the dense network.
    max_bytes, max_multiply_adds, max_loss
        See `tflite.Goal`.

    Returns
    -------
    str
    """
    loss = f"{100 * max_loss:g} point"
    if difference.low >= -max_loss:
        verdict = f"Goal reached: it is shown to lose no more than {loss}"
    elif difference.high < -max_loss:
        verdict = f"Goal missed: it is shown to lose more than {loss}"
    elif difference.estimate >= -max_loss:
        most = f"{-100 * difference.low:.1f}"
        verdict = f"Goal not shown: it loses no more than {loss} on these clips, but a loss of {most} is not ruled out"
    else:
        verdict = f"Goal not shown: it loses more than {loss} on these clips, but a smaller loss is not ruled out"
    if chosen.met.all():
        fallback = ""
    else:
        where = "" if len(chosen) == 1 else f" in {(~chosen.met).sum()} of the {len(chosen)} splits"
        fallback = f"On validation none of those small enough stays within {loss}{where}: the most accurate was taken. "
    return (
        f"Chosen on validation: {listed(dict.fromkeys(chosen.name))}, at most {chosen.bytes.max() / 1000:.1f} kB "
        f"(goal: under {max_bytes / 1000:g}) and {chosen.multiply_adds.max() / 1e6:.1f} million multiply-adds (goal: "
        f"under {max_multiply_adds / 1e6:g}). {fallback}{verdict} (test accuracy {difference} against the dense "
        "network)."
    )


def _is_faster(one: pd.Series, other: pd.Series) -> bool:
    """Tell whether the middle half of its times lies clearly, by a twentieth or more, below that of the other's."""
    return bool(one.latency_high_ms < 0.95 * other.latency_low_ms)
