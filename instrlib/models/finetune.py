"""Fine-tuning: a network that learned on one corpus learns on from there on another, against one that begins anew.

Every network of a comparison has the same table, the same training clips, the same epochs and the same augmentation; it
chooses its epoch on the same validation part and answers the same test part. They differ in what they begin with.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler
from instrlib.core.backend import load_keras
from instrlib.core.cache import code_hash
from instrlib.core.config import TrainConfig
from instrlib.core.errors import LeakError, StoreError
from instrlib.core.io import hash_json, read_json
from instrlib.data.dataset import Corpus
from instrlib.data.inputs import Inputs
from instrlib.data.store import FeatureStore
from instrlib.evaluation import statistics
from instrlib.evaluation.predictions import Predictions
from instrlib.models import embeddings
from instrlib.models.heads import HEADS, LOGISTIC
from instrlib.models.layers import Layer, output_of
from instrlib.models.train import config_for
from instrlib.models.trained import load_model, load_scaler, read_manifest, summary
from instrlib.models.transfer import MARK, SCRATCH, answer_heads, sizes
from instrlib.models.variants import Outcome, Variant, read_outcome, run_variants
from instrlib.models.vectors import MinMax, vector_store

if TYPE_CHECKING:
    import keras

TUNED = "fine-tuned"

PROBE = "probe"

CHOSEN = "chosen on validation"

_BATCH = 128


@dataclass(frozen=True)
class Pretrained:
    """What a fine-tuning begins with: the body of a trained network, and a head that was fitted on top of it.

    The head is a logistic regression on the frozen body's embedding, with its penalty chosen on validation. A head of
    random weights would send its first, blind corrections through the body and spoil what it knows [1]_.

    Attributes
    ----------
    folder : Path
        Run folder of `train.train_model`; its features must have the settings of those it is tuned on.
    rate : float
        Factor of the learning rate of all rows: what is there already needs smaller steps than random weights.
    decay : float
        Further factor with each row of the table away from the scores, from 0 to 1: the rows that hear first hear
        sounds of any kind, and have less to learn anew [2]_. At 0 the head alone learns.
    frozen_norm : bool
        Whether batch normalisation keeps the statistics, the scale and the shift that it has; otherwise it follows the
        new corpus.

    References
    ----------
    .. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang, "Fine-tuning can distort pretrained features and
       underperform out-of-distribution", ICLR 2022. arXiv:2202.10054
    .. [2] J. Howard, S. Ruder, "Universal language model fine-tuning for text classification", ACL 2018.
       arXiv:1801.06146
    """

    folder: Path
    rate: float = 1 / 3
    decay: float = 1.0
    frozen_norm: bool = False

    @property
    def spec(self) -> tuple[Layer, ...]:
        """Table of the network."""
        return tuple(Layer(**row) for row in read_manifest(self.folder)["spec"])

    @property
    def rates(self) -> tuple[float, ...]:
        """Factor of the learning rate of each row, and last of the scores."""
        return tuple(self.rate * factor for factor in falling_rates(self.spec, self.decay))

    @property
    def fingerprint(self) -> str:
        """Hash of the pretrained network and of how it is tuned."""
        settings = {**dataclasses.asdict(self), "folder": read_manifest(self.folder)["key"]}
        return hash_json([code_hash("models"), settings])

    def scaler(self, store: FeatureStore) -> Scaler:
        """Return the scaling of pretraining, which the body is used to.

        Raises
        ------
        StoreError
            When the features are of other settings than those that the network was trained on.
        """
        trained = read_json(self.folder / "preprocessing.json")["features"]
        if trained != store.config.to_dict():
            raise StoreError(
                f"{self.folder} was trained on features of other settings than those in {store.folder}; build both "
                "stores with the settings of one profile."
            )
        return load_scaler(self.folder)

    def begin(
        self, model: "keras.Model", store: FeatureStore, scaler: Scaler, train: pd.DataFrame, validation: pd.DataFrame
    ) -> None:
        """Give a new network the pretrained body, and fit its head; see `train.Initialisation`."""
        body, _ = load_model(self.folder)
        for layer, learned in zip(model.layers[:-1], body.layers[:-1], strict=True):
            layer.set_weights(learned.get_weights())
        known, held_out = (embed_clips(model, store, scaler, part) for part in (train, validation))
        model.layers[-1].set_weights(linear_head(*known, *held_out, several=output_of(model) == "sigmoid"))


def falling_rates(spec: Sequence[Layer], decay: float) -> tuple[float, ...]:
    """Return factors of the learning rate: 1 for the scores, `decay` times less with each row away from them.

    Parameters
    ----------
    spec : sequence of Layer
        The table; rows without weights are passed over.
    decay : float
        From 0 to 1.

    Returns
    -------
    tuple of float
        One for each row, and last that of the scores.

    Examples
    --------
    >>> falling_rates([Layer("conv", 8), Layer("average"), Layer("dense", 8)], 0.5)
    (0.25, 0.5, 0.5, 1.0)
    """
    above = np.cumsum([row.units > 0 for row in spec][::-1])[::-1]
    return (*(float(decay**number) for number in above), 1.0)


def linear_head(
    x: np.ndarray, labels: np.ndarray, held_x: np.ndarray, held_labels: np.ndarray, *, several: bool
) -> list[np.ndarray]:
    """Fit a logistic regression, its penalty chosen on validation, and return it as weights of a dense layer.

    Parameters
    ----------
    x, held_x : np.ndarray [shape=(n, n_dimensions)]
        Embeddings of training and validation.
    labels, held_labels : np.ndarray [shape=(n, n_classes)]
        1, 0 or NaN; see `FeatureStore.label_matrix`.
    several : bool
        Whether the layer answers by sigmoids.

    Returns
    -------
    list of np.ndarray
        Kernel [shape=(n_dimensions, n_classes)] and bias [shape=(n_classes,)].
    """
    scaling = MinMax.fit(x)
    predict, _ = HEADS[LOGISTIC](scaling.scale(x), labels, scaling.scale(held_x), held_labels, several=several, seed=0)
    # What it answers to nothing and to one step along each dimension tells its weights: its scores are linear.
    steps = np.vstack([np.zeros(x.shape[1]), np.eye(x.shape[1])])
    answers = np.clip(predict(steps), 1e-300, 1)
    scores = np.log(answers) - np.log1p(-np.minimum(answers, 1 - 1e-12)) if several else np.log(answers)
    kernel = (scores[1:] - scores[0]) / scaling.span[:, None]
    return [kernel.astype(np.float32), (scores[0] - scaling.low @ kernel).astype(np.float32)]


RECIPES: dict[str, dict[str, float | bool]] = {
    "all rows alike": {},
    "rates that fall": {"decay": 0.5},
    "rates that fall, norm frozen": {"decay": 0.5, "frozen_norm": True},
}
"""What is tried: settings of `Pretrained` by name; a split answers with the one that does best on validation."""


def tune(
    folder: Path,
    pretrained: Path,
    inputs: Inputs,
    config: TrainConfig,
    *,
    seeds: Sequence[int],
    recipes: Mapping[str, Mapping[str, float | bool]] = RECIPES,
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Fine-tune a network by every recipe, train the same table from scratch, and let each answer its test part once.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; a training that is there already is kept.
    pretrained : Path
        Run folder of the pretrained network. Nothing of the corpus in question may stand in what it learned from.
    inputs : Inputs
        Features and splits of the corpus in question.
    config : TrainConfig
        How all are trained.
    seeds : sequence of int
        A network for each, on every split.
    recipes : mapping
        Settings of `Pretrained`, by name.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict of str to Outcome
        `SCRATCH`, the recipes' names, and `CHOSEN`: on every split the recipe with the least validation loss there.

    Raises
    ------
    StoreError
        When the network was trained on features of other settings.
    LeakError
        When it was trained on the clips in question: their test part may be among what it learned from.
    """
    if read_manifest(pretrained)["store"] == inputs.store.fingerprint:
        raise LeakError(f"{pretrained} was trained on the clips it is to be tuned on; pretrain it on another corpus.")
    config = config_for(inputs.store, config)
    store = inputs.store.folder
    spec = Pretrained(pretrained).spec
    variants = [Variant(SCRATCH, spec, config, store)] + [
        Variant(name, spec, config, store, start=Pretrained(pretrained, **settings))
        for name, settings in recipes.items()
    ]
    outcomes = run_variants(folder, variants, splits=inputs.splits, seeds=seeds, workers=workers)
    names = chosen_recipes(outcomes, recipes)
    places = [[outcomes[name].folders[number][fold] for fold, name in enumerate(names)] for number in range(len(seeds))]
    return outcomes | {CHOSEN: read_outcome(places, store=store, splits=inputs.splits, workers=workers)}


def chosen_recipes(outcomes: dict[str, Outcome], recipes: Iterable[str] = RECIPES) -> list[str]:
    """Return the recipe of each split: the one with the least loss on its validation part, in the mean over seeds.

    Parameters
    ----------
    outcomes : dict of str to Outcome
        What `tune` gives.
    recipes : iterable of str
        Names of what there is to choose from.

    Returns
    -------
    list of str
    """
    losses = validation_losses({name: outcomes[name] for name in recipes})
    return losses.idxmin().to_list()


def validation_losses(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """Return the validation loss of each model on each split, in the mean over seeds, in nats.

    Parameters
    ----------
    outcomes : dict of str to Outcome
        By name.

    Returns
    -------
    pandas.DataFrame
        One row a model, one column a split.
    """
    return pd.DataFrame.from_dict(
        {
            name: [
                np.mean([summary(place)["validation_log_loss"] for place in of_split])
                for of_split in zip(*outcome.folders, strict=True)
            ]
            for name, outcome in outcomes.items()
        },
        orient="index",
    )


def probes(
    folder: Path,
    pretrained: Path,
    clips: Corpus,
    inputs: Inputs,
    *,
    seeds: Sequence[int],
    root: Path,
    workers: int | None = None,
) -> dict[str, Predictions]:
    """Fit a logistic regression on frozen embeddings, and let each answer the test part once.

    Parameters
    ----------
    folder, pretrained, inputs, seeds, workers
        See `tune`.
    clips : Corpus
        The clips in question.
    root : Path
        Folder of all feature stores.

    Returns
    -------
    dict of str to dict
        `PROBE`, on the pretrained network, and one on each published network that is at hand, as `transfer.MARK`; see
        `embeddings.available`.
    """
    store, size = inputs.store, sizes(inputs)[-1]
    own = embeddings.embed_store(store, embeddings.own(pretrained, name=PROBE), root=root, workers=workers)
    made = {PROBE: own} | {
        one.name: embeddings.embed_corpus(clips, one, root=root, workers=workers) for one in embeddings.available()
    }
    embedded = {name: vector_store(store, one["clip_id"], one["mean"]) for name, one in made.items()}
    found = answer_heads(folder, inputs, embedded, head=LOGISTIC, sizes=[size], seeds=seeds, workers=workers)
    return {name if name == PROBE else f"{name}, {LOGISTIC}": by_size[size] for name, by_size in found.items()}


def compare(answers: dict[str, Predictions], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Compare what was chosen with the network from scratch and with each probe, and the probe with the former.

    Parameters
    ----------
    answers : dict of str to dict
        The predictions of `tune` and those of `probes`, by name.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        See `statistics.compare`; p is corrected for the number of all pairs.
    """
    rivals = [name for name in (SCRATCH, PROBE, MARK) if name in answers]
    pairs = [*((CHOSEN, name) for name in rivals), (PROBE, SCRATCH)]
    return statistics.compare(answers, pairs=pairs, n_resamples=n_resamples, seed=seed)


def embed_clips(
    model: "keras.Model", store: FeatureStore, scaler: Scaler, segments: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Embed clips by what a network computes before its scores.

    Parameters
    ----------
    model : keras.Model
        The network.
    store, scaler
        Features and their scaling.
    segments : pandas.DataFrame
        Rows of `store.segments`, all segments of a clip together.

    Returns
    -------
    vectors : np.ndarray [shape=(n_clips, n_dimensions)]
        The mean over a clip's segments.
    labels : np.ndarray [shape=(n_clips, n_classes)]
        See `FeatureStore.label_matrix`.
    """
    body = load_keras().Model(model.input, model.layers[-1].input)
    parts = np.array_split(segments.row.to_numpy(), max(1, len(segments) // _BATCH))
    # Not `predict`: making a graph of it takes longer than the few clips.
    vectors = np.concatenate([np.asarray(body(store.read(rows, scaler), training=False)) for rows in parts])
    clips = segments.drop_duplicates("clip_id")
    number = pd.Series(np.arange(len(clips)), index=clips.clip_id)[segments.clip_id].to_numpy()
    sums = np.zeros((len(clips), vectors.shape[1]))
    np.add.at(sums, number, vectors)
    return sums / np.bincount(number)[:, None], store.label_matrix(clips)
