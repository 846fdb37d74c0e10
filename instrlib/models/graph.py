"""In-graph training loop: one call per epoch, with CutMix, MixUp and masks planned in advance."""

import functools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.core.parallel import load_keras
from instrlib.models.layers import Layer, build, initialise

if TYPE_CHECKING:
    import keras

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7


class Graph:
    """A network with its compiled epoch and prediction, shared by the trainings of one layer table.

    `shape` is (n_bins, n_frames) and `dtype` that of the features before scaling; `standardise` scales each example to
    mean 0 and standard deviation 1; `rates` and `frozen_norm` are those of a `train.Initialisation`.
    """

    def __init__(
        self,
        table: tuple[Layer, ...],
        shape: tuple[int, int],
        dtype: str,
        n_classes: int,
        output: str,
        standardise: bool,
        rates: tuple[float, ...] | None = None,
        frozen_norm: bool = False,
    ) -> None:
        load_keras()
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        self.model = build(table, (*shape, 1), n_classes, output=output)
        self._layers = self.model.layers[1:]
        self._output, self._standardise, self._frozen_norm = output, standardise, frozen_norm
        self._learned = [
            (variable.value, 1.0 if rates is None else rates[-1 if layer is self._layers[-1] else _row(layer)])
            for layer in self._layers
            if not (frozen_norm and _is_norm(layer))
            for variable in layer.trainable_variables
        ]
        self._moments = [[tf.Variable(tf.zeros_like(one)) for one, _ in self._learned] for _ in range(2)]
        self._step = tf.Variable(0.0)
        spec = tf.TensorSpec
        integers = {"rows": 2, "partners": 2, "box": 3, "bin_masks": 4, "frame_masks": 4}
        plan = {name: spec([None] * rank, tf.int32) for name, rank in integers.items()}
        plan |= {
            name: spec([None] * rank) for name, rank in {"targets": 3, "weights": 2, "share": 2, "rate": 1}.items()
        }
        plan |= {"mixed": spec([None], tf.bool), "seed": spec([], tf.int32)}
        scaling = {name: spec([shape[0], 1]) for name in ("slope", "offset", "floor")}
        # Without autograph, which would read this file even if it was edited after the import.
        made = functools.partial(tf.function, autograph=False)
        self.epoch = made(self._epoch, input_signature=[spec([None, *shape], dtype), plan, scaling])
        self.predict = made(self._predict, input_signature=[spec([None, *shape, 1])])

    def reset(self, seed: int) -> None:
        """Restart: weights drawn from the seed, and an optimizer without state."""
        initialise(self.model, seed)
        for one in (self._step, *self._moments[0], *self._moments[1]):
            one.assign(np.zeros(one.shape, np.float32))

    def _epoch(self, data: Any, plan: dict[str, Any], scaling: dict[str, Any]) -> Any:
        import tensorflow as tf

        def one_step(step: Any, totals: Any) -> tuple[Any, Any]:
            now = {name: value[step] for name, value in plan.items() if name != "seed"}
            x = augmented(data, now, scaling["floor"]) * scaling["slope"] + scaling["offset"]
            if self._standardise:
                mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
                x = (x - mean) / tf.where(variance > 0, tf.sqrt(variance), 1.0)
            with tf.GradientTape() as tape:
                scores = self._scores(x[..., None], (plan["seed"], tf.cast(self._step, tf.int32)))
                losses, right = self._losses(now["targets"], scores)
                loss = tf.reduce_mean(now["weights"] * losses)
            self._adam(tape.gradient(loss, [variable for variable, _ in self._learned]), now["rate"])
            sums = tf.reduce_sum(now["weights"] * tf.stack([losses, right, tf.ones_like(losses)]), axis=1)
            return step + 1, totals + sums

        n_steps = tf.shape(plan["rows"])[0]
        _, totals = tf.while_loop(lambda step, _: step < n_steps, one_step, [0, tf.zeros([3])])
        return totals  # weighted loss, weight of correct examples, total weight

    def _scores(self, x: Any, seed: tuple[Any, Any]) -> Any:
        """Return the logits of the training mode: batch statistics and dropout."""
        import tensorflow as tf

        for number, layer in enumerate(self._layers[:-1]):
            if _is_norm(layer) and not self._frozen_norm:
                x = _normalised(layer, x)
            elif type(layer).__name__ == "Dropout":
                x = tf.nn.experimental.stateless_dropout(x, layer.rate, seed=[seed[0] + number, seed[1]])
            else:
                x = layer(x, training=False) if _is_norm(layer) else layer(x)
        last = self._layers[-1]
        return tf.matmul(x, last.kernel.value) + last.bias.value

    def _losses(self, targets: Any, scores: Any) -> tuple[Any, Any]:
        """Return the loss of each example in nats, and how correct it is, from 0 to 1."""
        import tensorflow as tf

        if self._output == "softmax":
            right = tf.equal(tf.argmax(targets, -1), tf.argmax(scores, -1))
            return tf.nn.softmax_cross_entropy_with_logits(targets, scores), tf.cast(right, tf.float32)
        observed = tf.cast(targets >= 0, tf.float32)
        losses = observed * tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(targets, 0.0), scores)
        right = observed * tf.cast(tf.equal(targets > 0.5, scores > 0), tf.float32)
        n_observed = tf.maximum(tf.reduce_sum(observed, -1), 1.0)
        return tf.reduce_sum(losses, -1) / n_observed, tf.reduce_sum(right, -1) / n_observed

    def _adam(self, gradients: list[Any], rate: Any) -> None:
        import tensorflow as tf

        self._step.assign_add(1.0)
        powers = {"beta1_power": _BETA_1**self._step, "beta2_power": _BETA_2**self._step}
        settings = powers | {"beta1": _BETA_1, "beta2": _BETA_2, "epsilon": _EPSILON}
        for (variable, factor), gradient, m, v in zip(self._learned, gradients, *self._moments, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=m.handle, v=v.handle, lr=factor * rate, grad=gradient, **settings
            )

    def _predict(self, x: Any) -> Any:
        return self.model(x, training=False)


@functools.lru_cache(maxsize=4)
def compiled(*made_of: Any) -> Graph:
    """Return the cached graph of these arguments; building it takes half the time of a small training."""
    return Graph(*made_of)


def augmented(data: Any, now: dict[str, Any], floor: Any) -> Any:
    """Return the examples of one step [shape=(batch, n_bins, n_frames), float32], mixed and masked as planned.

    `data` are features before scaling [shape=(n, n_bins, n_frames)], `now` is one step of `examples.plans`, and `floor`
    the value of silence [shape=(n_bins, 1)].
    """
    import tensorflow as tf

    def runs(length: int, ends: Any) -> Any:
        cells = tf.range(length)
        return (cells >= ends[..., :1]) & (cells < ends[..., 1:])

    def mixed() -> Any:
        other = tf.cast(tf.gather(data, now["partners"]), tf.float32)
        inside = runs(n_bins, now["box"][:, :2])[:, :, None] & runs(n_frames, now["box"][:, 2:])[:, None, :]
        own = now["share"][:, None, None]
        return tf.where(inside, own * x + (1 - own) * other, x)

    def masked() -> Any:
        in_frames = tf.reduce_any(runs(n_frames, now["frame_masks"]), 1)[:, None, :]
        in_bins = tf.reduce_any(runs(n_bins, now["bin_masks"]), 1)[:, :, None]
        return tf.where(in_frames | in_bins, floor, x)

    n_bins, n_frames = data.shape[1:]
    x = tf.cast(tf.gather(data, now["rows"]), tf.float32)
    x = tf.cond(now["mixed"], mixed, lambda: x)
    n_masks = tf.shape(now["frame_masks"])[1] + tf.shape(now["bin_masks"])[1]
    return tf.cond(n_masks > 0, masked, lambda: x)


def _row(layer: "keras.layers.Layer") -> int:
    return int(re.sub(r"\D", "", layer.name)) - 1


def _is_norm(layer: "keras.layers.Layer") -> bool:
    return type(layer).__name__ == "BatchNormalization"


def _normalised(layer: "keras.layers.BatchNormalization", x: Any) -> Any:
    """Normalise a batch as Keras does, with the fused kernel of TensorFlow where available."""
    import tensorflow as tf

    if len(x.shape) != 4:
        return layer(x, training=True)
    x, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, layer.gamma.value, layer.beta.value, epsilon=layer.epsilon, is_training=True
    )
    n = tf.cast(tf.size(x) / tf.shape(x)[-1], tf.float32)  # the kernel returns the sample variance
    for kept, new in ((layer.moving_mean, mean), (layer.moving_variance, variance * (n - 1) / n)):
        kept.value.assign(layer.momentum * kept.value + (1 - layer.momentum) * new)
    return x
