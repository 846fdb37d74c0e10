"""More of what is rendered: the same split of the same groups, with many more clips of each.

Rendered clips cost nothing but time, and for the same number of training examples many clips seen a few times teach
more than few clips seen many times (`trials`). Every group stays in its part, so nothing crosses the split.
"""

from pathlib import Path

from instrlib.core.config import folders
from instrlib.core.errors import ConfigError
from instrlib.data import rendered
from instrlib.data.inputs import Inputs
from instrlib.data.splits import Split, fingerprint_of, load_split, save_splits
from instrlib.data.store import build_store
from instrlib.deploy.release import Candidate
from instrlib.models.variants import Variant, run_variants
from instrlib.runner.run import Run

MORE_CLIPS = "compact CNN, more clips"
"""What the candidate is called."""

SEEDS = 2
"""So many networks are trained on many clips, at most: each takes longer than any of a comparison, and one is kept."""


def enlarge(inputs: Inputs, folder: Path, *, clips_per_class: int, workers: int | None = None) -> Inputs:
    """Add rendered clips to all parts of a study of the rendered corpus, each to the part of its group.

    Parameters
    ----------
    inputs : Inputs
        Features and splits of the study, whose corpus is `rendered` as it comes.
    folder : Path
        Where the enlarged splits are kept.
    clips_per_class : int
        Clips of each class that are rendered in all.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Inputs
        Each part holds its clips and others of the same groups. Groups that the study lacks are trained on.

    Raises
    ------
    ConfigError
        When the study has clips that the enlarged corpus lacks: it has more of each class, or was not rendered so.
    """
    corpus = rendered.load(
        folders().data / "rendered", clips_per_class=clips_per_class, classes=inputs.store.classes, workers=workers
    )
    store = build_store(corpus, inputs.store.config, root=folders().data / "features", workers=workers)
    groups = store.clips.set_index("clip_id").group
    if lost := sorted(set(inputs.store.clips.clip_id) - set(groups.index)):
        raise ConfigError(
            f"The clip {lost[0]} is none of {clips_per_class} rendered clips of each class; enlarge by more clips."
        )
    splits = []
    for path in inputs.splits:
        split = load_split(path, inputs.store.segments)
        known = inputs.store.clips
        part_of = dict(zip(known.group, known.clip_id.map(split.parts), strict=True))
        splits.append(Split(groups.map(part_of).fillna("train").rename(None).sort_index(), split.seed))
    return Inputs(store, tuple(save_splits(splits, folder)), fingerprint_of(splits))


def candidate(run: Run, inputs: Inputs, *, workers: int | None = None) -> Candidate:
    """Train the baseline's network on many rendered clips, as one more that may be given away.

    Parameters
    ----------
    run : Run
        Of the notebook that publishes; its profile says how many clips and how they are trained on.
    inputs : Inputs
        Features and splits of the study.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Candidate
        With features and splits of its own.
    """
    profile = run.profile
    more = enlarge(
        inputs, run.folder / "more_clips", clips_per_class=profile.given_away_clips_per_class, workers=workers
    )
    variant = Variant(MORE_CLIPS, "compact", profile.given_away, more.store.folder)
    trained = run_variants(run.folder, [variant], splits=more.splits, seeds=run.seeds[:SEEDS], workers=workers)
    return Candidate(run.notebook, MORE_CLIPS, trained[MORE_CLIPS].folders, more)
