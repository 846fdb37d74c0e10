"""A model taken apart: each row differs from the full one in one thing."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError
from instrlib.data.dataset import Corpus
from instrlib.data.store import build_store
from instrlib.models.layers import Layer, widen
from instrlib.models.references import get_reference, settings
from instrlib.models.variants import Variant

FULL = "full model"

CUTMIX = AugmentConfig(mix="cutmix")


@dataclass(frozen=True)
class Row:
    """One row of an ablation.

    Attributes
    ----------
    name : str
        What is different; `FULL` for the model that the others are compared with.
    about : str
        "network", "training" or "input".
    spec : tuple of Layer
        The network.
    config : TrainConfig
        How it is trained.
    features : FeatureConfig
        What it sees.
    """

    name: str
    about: str
    spec: tuple[Layer, ...]
    config: TrainConfig
    features: FeatureConfig


def rows(
    spec: tuple[Layer, ...], config: TrainConfig, features: FeatureConfig, *, per_kind: int | None = None
) -> list[Row]:
    """Take a model apart: the full one first, then one change a row.

    Parameters
    ----------
    spec : tuple of Layer
        Convolutions and the mean over time and frequency, as in `models.SPECS["compact"]`.
    config : TrainConfig
        How it is trained.
    features : FeatureConfig
        What it sees: a log-mel spectrogram.
    per_kind : int, optional
        At most so many changes of each kind; see `Row.about`.

    Returns
    -------
    list of Row

    Examples
    --------
    >>> from instrlib.models.layers import get_spec
    >>> made = rows(get_spec("small"), TrainConfig(), FeatureConfig())
    >>> [row.name for row in made if row.about == "training"]
    ['with CutMix', 'without class weights']
    """
    if [layer.kind for layer in spec[-2:]] != ["conv", "average"]:
        raise ConfigError("An ablation takes a network apart that ends with a convolution and the mean over both axes.")
    change = dataclasses.replace
    networks = {
        "without batch norm": _each(spec, norm=False),
        "without dropout": _each(spec, dropout=0.0),
        "one convolution fewer": (*spec[:-2], spec[-1]),
        "one convolution more": (*spec[:-1], spec[-2], spec[-1]),
        "half the width": widen(spec, 0.5),
        "double the width": widen(spec, 2.0),
        "strides instead of pooling": tuple(change(row, stride=row.stride * row.pool, pool=1) for row in spec),
        "all values, not their mean": (*spec[:-1], change(spec[-1], kind="flatten")),
    }
    trainings = {
        "with CutMix": change(config, augment=CUTMIX),
        "without class weights": change(config, class_weights=not config.class_weights),
    }
    inputs = {
        "MFCC": change(features, kind="mfcc"),
        "PCEN": change(features, kind="pcen"),
        "half the mel bands": change(features, n_mels=features.n_mels // 2),
        "half the frames": change(features, hop_length=2 * features.hop_length),
        "a third of the length": change(
            features,
            segment_s=features.segment_s / 3,
            segment_hop_s=features.segment_hop_s / 3,
            max_segments=3 * features.max_segments,
        ),
    }
    return [
        Row(FULL, "", spec, config, features),
        *[Row(name, "network", changed, config, features) for name, changed in networks.items()][:per_kind],
        *[Row(name, "training", spec, changed, features) for name, changed in trainings.items()][:per_kind],
        *[Row(name, "input", spec, config, changed) for name, changed in inputs.items()][:per_kind],
    ]


REFERENCE_FULL = "3 conv + 3 dense"


@dataclass(frozen=True)
class Reported:
    """A row of the reference's own ablation.

    Attributes
    ----------
    n_conv, n_dense : int
        Its convolutions and dense layers.
    accuracy : float
        What it reported: on chunks whose siblings stood in training, from one seed.
    """

    n_conv: int
    n_dense: int
    accuracy: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.n_conv} conv + {self.n_dense} dense"


REPORTED = (
    Reported(3, 3, 0.860),
    Reported(0, 3, 0.470),
    Reported(1, 3, 0.573),
    Reported(2, 3, 0.828),
    Reported(3, 0, 0.807),
    Reported(3, 1, 0.818),
    Reported(3, 2, 0.832),
)
"""The ablation of freesound-cutmix, the full network first."""


def reference_rows(profile: str, *, per_kind: int | None = None) -> list[Row]:
    """Return the rows of the reference's ablation: 0 to 3 convolutions and 0 to 3 dense layers, the full network first.

    Parameters
    ----------
    profile : str
        Decides how many epochs there is time for: these networks have up to nine million weights. As many seeds of the
        study are used as `references.SEEDS` allows.
    per_kind : int, optional
        So many rows besides the full network.

    Returns
    -------
    list of Row
        On its own input, trained as it describes; without CutMix, which came after its ablation.
    """
    reference = get_reference("freesound-cutmix")
    config = dataclasses.replace(settings("freesound-cutmix", profile), augment=AugmentConfig())
    convs, denses = ([row for row in reference.spec if row.kind == kind] for kind in ("conv", "dense"))
    return [
        Row(
            reported.name,
            "reference",
            (*convs[: reported.n_conv], Layer("flatten"), *denses[: reported.n_dense]),
            config,
            reference.features,
        )
        for reported in REPORTED[: None if per_kind is None else 1 + per_kind]
    ]


def variants(rows: Sequence[Row], corpus: Corpus, *, root: Path) -> list[Variant]:
    """Compute the features that the rows need and return them as variants to train.

    Parameters
    ----------
    rows : sequence of Row
        From `rows` or `reference_rows`.
    corpus : Corpus
        The clips.
    root : Path
        Folder of all feature stores; what is there already is used.

    Returns
    -------
    list of Variant
    """
    stores = {
        features: build_store(corpus, features, root=root).folder for features in {row.features: 0 for row in rows}
    }
    return [Variant(row.name, row.spec, row.config, stores[row.features]) for row in rows]


def _each(spec: tuple[Layer, ...], **changes: bool | float) -> tuple[Layer, ...]:
    return tuple(dataclasses.replace(row, **changes) for row in spec)
