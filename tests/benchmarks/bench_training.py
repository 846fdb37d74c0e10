"""Training speed: the library's loop beside plain `keras.fit`, its former path, and PyTorch where installed.

Each side has a process of its own with one thread, which waits while another one works. Rounds alternate; CPU time is
measured and medians of ratios within a round are printed, so that other work on the machine hardly counts. All train
the same network on the same examples, without augmentation, and validate after every epoch.
"""

import functools
import importlib.util
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy, TensorFlow and PyTorch are imported

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from instrlib.audio.features import Scaler, scale  # noqa: E402
from instrlib.core.config import FeatureConfig, TrainConfig  # noqa: E402
from instrlib.core.parallel import load_keras  # noqa: E402
from instrlib.models import layers, train  # noqa: E402
from instrlib.models.train import Examples  # noqa: E402

N, N_VALIDATION, N_CLASSES, EPOCHS, ROUNDS = 512, 128, 12, 3, 5
BATCH, BATCH_BEFORE = TrainConfig().batch_size, 16
RATE = 3e-3
SCALER = Scaler(np.full(64, -40, np.float32), np.full(64, 10, np.float32))
NETWORKS = {"small": FeatureConfig(hop_length=1024), "compact": FeatureConfig()}
GOALS = {("small", "before"): 2.5, ("compact", "torch"): 1.0}


@functools.cache
def data(network: str) -> tuple[np.ndarray, np.ndarray]:
    """Random features in dB and one-hot classes, the same in every process."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((N, *NETWORKS[network].shape)) * 10 - 40).astype(np.float16)
    return x, np.eye(N_CLASSES, dtype=np.float32)[rng.integers(N_CLASSES, size=N)]


def library(network: str) -> Callable[[], object]:
    """Return what trains for some epochs as the library does; the graph is there after the first call."""
    x, y = data(network)
    known, held_out = (Examples(((x, np.arange(n)),), y[:n], NETWORKS[network], SCALER) for n in (N, N_VALIDATION))
    config = TrainConfig(epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, patience=EPOCHS)
    return lambda: train.fit(layers.SPECS[network], known, held_out, config, 0)


def keras_model(network: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return a compiled network and the scaled examples."""
    keras = load_keras()
    x, y = data(network)
    model = layers.build(layers.SPECS[network], (*x.shape[1:], 1), N_CLASSES)
    model.compile(keras.optimizers.Adam(RATE), "categorical_crossentropy", weighted_metrics=["accuracy"])
    return model, scale(x, NETWORKS[network], SCALER)[..., None], y


def plain(network: str) -> Callable[[], object]:
    """`keras.fit` on arrays."""
    model, x, y = keras_model(network)
    settings = {"validation_data": (x[:N_VALIDATION], y[:N_VALIDATION]), "validation_batch_size": 64, "verbose": 0}
    return lambda: model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, **settings)


def before(network: str) -> Callable[[], object]:
    """`keras.fit` on batches made in NumPy, with validation and early stopping, as at commit a229e2c."""
    keras = load_keras()
    model, *_ = keras_model(network)
    x, y = data(network)

    class Batches(keras.utils.PyDataset):
        def __init__(self, n: int, size: int) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self.parts = np.array_split(np.random.default_rng(0).permutation(n), n // size)

        def __len__(self) -> int:
            return len(self.parts)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            rows = np.sort(self.parts[index])
            scaled = scale(x[rows].astype(np.float32), NETWORKS[network], SCALER)
            return scaled[..., None], y[rows], np.ones(len(rows), np.float32)

    stop = keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=EPOCHS, restore_best_weights=True)
    settings = {"validation_data": Batches(N_VALIDATION, 64), "callbacks": [stop], "verbose": 0}
    return lambda: model.fit(Batches(N, BATCH_BEFORE), epochs=EPOCHS, **settings)


def torch(network: str) -> Callable[[], object]:
    """Return the same network in PyTorch, with the weights of Keras, channels last."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    model, x, y = keras_model(network)
    given = iter(torch.from_numpy(one.copy()) for one in model.get_weights())
    rows, channels, shape = [], 1, x.shape[1:3]
    for row in layers.SPECS[network]:
        if row.kind == "average":
            rows += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(row.dropout)]
            continue
        # As Keras pads: where the zeros cannot be the same on both sides, there is one more after than before.
        missing = [max((-(-side // row.stride) - 1) * row.stride + row.kernel - side, 0) for side in shape]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in missing)
        even = top == bottom == left == right
        rows += [] if even else [nn.ZeroPad2d((left, right, top, bottom))]
        conv = nn.Conv2d(channels, row.units, row.kernel, row.stride, padding=top if even else 0, bias=False)
        norm = nn.BatchNorm2d(row.units, eps=1e-3, momentum=1 - layers.BATCH_NORM_MOMENTUM)
        conv.weight.data = next(given).permute(3, 2, 0, 1).contiguous()
        norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = (next(given) for _ in range(4))
        rows += [conv, norm, nn.ReLU(), *([nn.MaxPool2d(row.pool)] if row.pool > 1 else [])]
        channels, shape = row.units, tuple(-(-side // row.stride) // row.pool for side in shape)
    scores = nn.Linear(channels, N_CLASSES)
    scores.weight.data, scores.bias.data = next(given).T.contiguous(), next(given)
    net = nn.Sequential(*rows, scores)
    pictures, classes = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y.argmax(axis=1))
    with torch.no_grad():
        answers = torch.softmax(net.eval()(pictures[:8]), dim=1).numpy()
    np.testing.assert_allclose(answers, model.predict_on_batch(x[:8]), atol=1e-5)
    net = net.to(memory_format=torch.channels_last)
    optimizer, loss = torch.optim.Adam(net.parameters(), RATE, eps=1e-7), nn.CrossEntropyLoss()

    def epochs() -> None:
        for _ in range(EPOCHS):
            for first in range(0, N, BATCH):
                batch = pictures[first : first + BATCH].contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad()
                loss(net.train()(batch), classes[first : first + BATCH]).backward()
                optimizer.step()
            with torch.no_grad():
                for batch in pictures[:N_VALIDATION].split(64):
                    net.eval()(batch.contiguous(memory_format=torch.channels_last))

    return epochs


SIDES = {"library": library, "keras.fit": plain, "before": before, "torch": torch}
made = functools.cache(lambda side, network: SIDES[side](network))


def cpu_s(side: str, network: str) -> float:
    """Return the CPU seconds of some epochs; those of the first call in a process also build the graph."""
    load_keras().utils.set_random_seed(0)
    work, start = made(side, network), time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print milliseconds an example, and how many times as fast the library is as the others."""
    names = [side for side in SIDES if side != "torch" or importlib.util.find_spec("torch")]
    for network, config in NETWORKS.items():
        sides = {side: ProcessPoolExecutor(1, get_context("spawn")) for side in names}
        rounds = [[sides[side].submit(cpu_s, side, network).result() for side in names] for _ in range(ROUNDS + 1)]
        took = pd.DataFrame(rounds[1:], columns=names)
        print(f"{network}, {config.n_mels} x {config.shape[1]}, one thread")
        for side in names:
            ratio, each = (took[side] / took.library).median(), 1e3 * took[side].median() / (EPOCHS * N)
            goal = f" (goal {GOALS[network, side]})" if (network, side) in GOALS else ""
            print(f"  {side:10} {each:6.3f} ms an example; the library is {ratio:4.2f} x as fast{goal}")
    if "torch" not in names:
        print("PyTorch is not installed; pip install torch==2.13.0 (its CPU build) to compare with it.")


if __name__ == "__main__":
    main()
