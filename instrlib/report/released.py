"""What a study gives away, where that is a network trained for it alone: no other section names it."""

from typing import Any

from instrlib.core.config import Profile
from instrlib.report.tables import text_of
from instrlib.reporting.overview import Notebooks

_HELD_OUT = "held-out clips"  # what notebook 13 calls the test part of the model's own corpus


def found_sentences(notebooks: Notebooks, profile: Profile) -> list[str]:
    """Say how good the model is that is given away, beside those that the study compares.

    Parameters
    ----------
    notebooks : dict
        `metrics` and `manifest` by name, as `results.json` holds them.
    profile : Profile
        Of the study.

    Returns
    -------
    list of str
        The first on the clips that the other models answered, where notebook 13 asked it those; then on all that were
        held out for it. Empty where none is given away, or one that the study compares with others.
    """
    model = _trained_for_it(notebooks)
    if not model:
        return []
    name = f"“{model['network']}” ({model['notebook'][:2]})"
    sizes = f"{profile.given_away_clips_per_class:,} clips of each class instead of {profile.clips_per_class:,}"
    on_all = (
        f"the {model['n_tested']:,} clips that the larger corpus has of its {model['n_groups']} held-out groups it "
        f"has {text_of(model['scores']['accuracy'])}"
    )
    same = _on_the_test_part(notebooks)
    if same is None:
        return [f"The model that is given away, {name}, is none of these and made from {sizes}: on {on_all}."]
    return [
        f"The model that is given away, {name}, is none of these: made from {sizes}, it has an accuracy of "
        f"{text_of(same)} on the same {same['n']} clips.",
        f"On {on_all}. Clips, augmentation and training changed together and no difference from the others was "
        "tested: that more can be reached is seen, not by what.",
    ]


def method(notebooks: Notebooks, profile: Profile) -> str:
    """Say how that model was made; "" where there is none."""
    model = _trained_for_it(notebooks)
    if not model:
        return ""
    made, changed = profile.given_away, profile.given_away.augment
    n_networks = model["candidates"][0]["networks"]
    starts = "one seed" if n_networks == 1 else f"each of {n_networks} seeds"
    kept = "" if n_networks == 1 else ", and the network with the highest validation accuracy is kept"
    return (
        f"**The model that is given away.** For it {profile.given_away_clips_per_class:,} clips of each class are "
        f"rendered instead of {profile.clips_per_class:,}, each in the part of its group, so that no group crosses the "
        f"split; the larger corpus's test part has {model['n_tested']:,} clips of the same {model['n_groups']} groups. "
        f"The baseline's network is trained on them from {starts} for {made.epochs} epochs in batches of "
        f"{made.batch_size}: {changed.retake:.0%} of the examples are heard as in another take (tone colour, length, "
        f"room and noise drawn anew), and {changed.share:.0%} of the batches are mixed by CutMix [@yun2019]{kept}. Its "
        "file holds a byte a weight."
    )


def _trained_for_it(notebooks: Notebooks) -> dict[str, Any]:
    """Return the record of a published network that the notebook which publishes it has trained, too."""
    for name, entry in notebooks.items():
        model = entry["metrics"].get("published") or {}
        if model.get("notebook") == name:
            return model
    return {}


def _on_the_test_part(notebooks: Notebooks) -> dict[str, Any] | None:
    """Return its accuracy on the clips that all other models answered."""
    numbers = {name[:2]: entry["metrics"] for name, entry in notebooks.items()}
    rows = numbers.get("13", {}).get("in_domains", ())
    held_out = (row for row in rows if row["domain"] == _HELD_OUT and row["score"] == "accuracy")
    return next((row for row in held_out if row["n"] == numbers.get("02", {}).get("n_tested")), None)
