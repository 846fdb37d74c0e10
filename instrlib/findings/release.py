"""Sentences about the model that is given away, made from its numbers."""

import pandas as pd

from instrlib.deploy.release import Release, size_bytes
from instrlib.evaluation.calibration import KEPT_SHARE
from instrlib.evaluation.intervals import Interval


def release_sentences(release: Release, candidates: pd.DataFrame, noises: pd.DataFrame) -> list[str]:
    """Say what is given away, how good the file is, what calibration did, and what is refused.

    Parameters
    ----------
    release : Release
        What `release.publish` gives.
    candidates : pandas.DataFrame
        See `release.Choice`.
    noises : pandas.DataFrame
        See `release.noise_rejection`.

    Returns
    -------
    list of str
    """
    return [
        _chosen(release, candidates),
        _accuracy(release),
        _calibrated(release),
        _refused(release, noises),
    ]


def _chosen(release: Release, candidates: pd.DataFrame) -> str:
    about, sizes = release.model.about, size_bytes(release.model.folder)
    mean = candidates.validation_accuracy[(candidates.name == about["network"]) & candidates.fits].max()
    n_networks = candidates.networks.iloc[0]
    if len(candidates) > 1:
        chosen = f"the best of {len(candidates)} kinds of networks, each by its mean validation accuracy ({mean:.3f})"
    elif n_networks > 1:
        chosen = f"the best of {n_networks} networks of its kind by validation accuracy (mean {mean:.3f})"
    else:
        chosen = f"the only network of its kind (validation accuracy {mean:.3f})"
    return (
        f"The model that is given away is {about['network']!r} of notebook {about['notebook'][:2]}, seed "
        f"{about['seed']}, {chosen}. With a byte a weight the file has {sizes['single.tflite'] / 1000:.0f} kB, "
        f"the whole folder {sizes.sum() / 1000:.0f} kB, and {about['agreement']:.0%} of its validation answers are "
        "those of the network."
    ).replace("%", " %")


def _accuracy(release: Release) -> str:
    about = release.model.about
    reached = Interval(**about["scores"]["accuracy"])
    return (
        f"The file itself, asked once about {about['n_tested']} clips of {about['n_groups']} groups that it has never "
        f"seen, names the right instrument with accuracy {reached}."
    )


def _calibrated(release: Release) -> str:
    temperature = release.model.single.temperature
    was = "about right" if abs(temperature - 1) < 0.05 else "too sure" if temperature > 1 else "not sure enough"
    reached = []
    for score, words in (("log_loss", "log loss"), ("expected_calibration_error", "calibration error")):
        rows = release.scores[release.scores.score == score].set_index("model").estimate
        file, network = rows["file, calibrated"], rows["network as trained"]
        reached.append(f"{words} of {file:.3f}, the network as trained {network:.3f}")
    return (
        f"On validation the network's probabilities were {was}: the temperature that fits them best is "
        f"{temperature:.2f}. On the test clips the file with this temperature has a {' and a '.join(reached)}; these "
        "differences were not tested."
    )


def _refused(release: Release, noises: pd.DataFrame) -> str:
    found = release.model.about["refusals"]
    least, most = noises.abstained.idxmin(), noises.abstained.idxmax()
    shares = (
        f"{noises.abstained[least]:.0%} of every noise"
        if noises.abstained[least] == noises.abstained[most]
        else f"{noises.abstained[least]:.0%} ({least}) to {noises.abstained[most]:.0%} ({most}) of the noises"
    )
    lost, refused = (
        "none there are" if share is None else f"{share:.0%}" for share in (found["right_lost"], found["wrong_refused"])
    )
    told_apart = found["wrong_refused"] is not None and (found["wrong_refused"] > (found["right_lost"] or 0))
    verdict = "" if told_apart else " They refuse right answers as readily as wrong ones and are worth nothing."
    if noises.abstained.mean() < 0.5:
        verdict += " Noise is mostly taken for an instrument: it is not unlike enough to be doubted."
    return (
        f'With thresholds that keep {KEPT_SHARE:.0%} of the right answers on validation it answers "none of these" to '
        f"{lost} of the right answers on test, to {refused} of the wrong ones and to {shares}.{verdict}"
    ).replace("%", " %")
