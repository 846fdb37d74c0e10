"""How large a study is: the profiles smoke, quick and full. Apart from `config`, so that kept networks outlive them."""

from dataclasses import dataclass

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig, one_of


@dataclass(frozen=True)
class Profile:
    """How large a study is.

    Attributes
    ----------
    name : str
        "smoke" (seconds, for tests), "quick" (minutes on a laptop) or "full" (the real findings).
    clips_per_class : int
        Size of the rendered corpus.
    max_clips_per_class : int or None
        Cap for corpora from disk; None takes all.
    features : FeatureConfig
        What the networks see; the smaller profiles step by twice as many samples, which halves the work.
    train : TrainConfig
        How the baseline is trained.
    network : str
        The network of the comparisons that train many: a name of `models.SPECS`.
    experiment : TrainConfig
        How it is trained.
    given_away_clips_per_class : int
        So many clips are rendered for one more network that may be given away; see `enlarge`.
    given_away : TrainConfig
        How that one is trained.
    fine_tune_epochs : int
        Epochs of fine-tuning while a network is pruned.
    trials : int
        Trials of a random search.
    rows_per_kind : int or None
        Changes of each kind in an ablation; None makes all.
    min_test_clips : int
        With fewer clips in the test part, every clip is tested once, by cross-validation over groups.
    explained_per_class : int
        Clips of each class whose activation maps are put to the test.
    n_bootstrap : int
        Resamples behind an interval.
    notebook_limit_s : float
        A notebook that takes longer is stopped.
    """

    name: str
    clips_per_class: int
    max_clips_per_class: int | None
    features: FeatureConfig
    train: TrainConfig
    network: str
    experiment: TrainConfig
    given_away_clips_per_class: int
    given_away: TrainConfig
    fine_tune_epochs: int
    trials: int
    rows_per_kind: int | None
    min_test_clips: int
    explained_per_class: int
    n_bootstrap: int
    notebook_limit_s: float


FOR_RECORDINGS = AugmentConfig(retake=0.5, mix="cutmix", share=0.5)
"""What a network that learns from rendered sounds and is to hold on recordings is trained with; see `trials`."""

PROFILES: dict[str, Profile] = {
    "smoke": Profile(
        name="smoke",
        clips_per_class=12,
        max_clips_per_class=12,
        features=FeatureConfig(hop_length=1024),
        train=TrainConfig(epochs=2, patience=2),
        network="small",
        experiment=TrainConfig(epochs=2, patience=2),
        given_away_clips_per_class=24,
        given_away=TrainConfig(epochs=2, patience=2, augment=FOR_RECORDINGS),
        fine_tune_epochs=1,
        trials=2,
        rows_per_kind=1,
        min_test_clips=0,
        explained_per_class=2,
        n_bootstrap=100,
        notebook_limit_s=600.0,
    ),
    "quick": Profile(
        name="quick",
        clips_per_class=50,
        max_clips_per_class=None,
        features=FeatureConfig(hop_length=1024),
        train=TrainConfig(epochs=20, patience=8),
        network="small",
        experiment=TrainConfig(epochs=10, patience=10),
        given_away_clips_per_class=400,
        given_away=TrainConfig(epochs=12, patience=12, batch_size=32, augment=FOR_RECORDINGS),
        fine_tune_epochs=2,
        trials=10,
        rows_per_kind=2,
        min_test_clips=100,
        explained_per_class=4,
        n_bootstrap=1000,
        notebook_limit_s=1800.0,
    ),
    "full": Profile(
        name="full",
        clips_per_class=600,
        max_clips_per_class=None,
        features=FeatureConfig(),
        train=TrainConfig(epochs=40, patience=20),
        network="small",
        experiment=TrainConfig(epochs=30, patience=15),
        given_away_clips_per_class=3000,
        given_away=TrainConfig(epochs=20, patience=20, batch_size=32, augment=FOR_RECORDINGS),
        fine_tune_epochs=6,
        trials=20,
        rows_per_kind=None,
        min_test_clips=100,
        explained_per_class=20,
        n_bootstrap=10_000,
        notebook_limit_s=12 * 3600.0,
    ),
}


def get_profile(name: str) -> Profile:
    """Return the profile called `name`.

    Raises
    ------
    ConfigError
        When there is none; the message lists those there are.

    Examples
    --------
    >>> get_profile("smoke").train.epochs
    2
    """
    return PROFILES[one_of("profile", name, tuple(PROFILES))]
