"""Training `compact` under Keras against the same network in PyTorch: same batches, same data, one thread each.

Each side has a process of its own, which waits while the other one works; rounds alternate, and medians are printed.
PyTorch is given the memory format that is faster for it. Both begin with the same weights and must give the same
answers first. Below it stands what is left of Keras' speed in the training that the study does: batches read and scaled
from a store, weighed, with a validation after each epoch.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = "1"
for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = THREADS  # before numpy, TensorFlow and PyTorch are imported

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from instrlib.core.config import FeatureConfig, TrainConfig  # noqa: E402
from instrlib.data.store import FeatureStore, fit_scaler  # noqa: E402
from instrlib.models import layers as models  # noqa: E402
from instrlib.models import training  # noqa: E402

CONFIG = FeatureConfig()
N_CLIPS, N_CLASSES, BATCH = 512, 12, 16
N_VALIDATION = 64
EPOCHS = 4
"""In one measurement, since what `fit` does before and after its epochs is done once for a whole training."""

LEARNING_RATE = 3e-3
ROUNDS = 5
GOAL = 1.0
TOLERANCE = 1e-5
NO_TORCH = "PyTorch is not here to compare with; pip install torch==2.13.0"


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Random pictures and classes, the same in every process."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_CLIPS, *CONFIG.shape, 1), dtype=np.float32)
    return x, rng.integers(0, N_CLASSES, N_CLIPS)


def keras_side(folder: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    """Build and write down the network and its answers; return what there is to say of it and its work."""
    keras = training.load_keras()
    training.make_deterministic(0)
    x, targets = examples()
    model = models.build(models.get_spec("compact"), x.shape[1:], N_CLASSES, fused=True)
    np.savez(folder / "weights.npz", *model.get_weights())
    np.save(folder / "answers.npy", model.predict_on_batch(x[:BATCH]))
    loss = keras.losses.CategoricalCrossentropy()
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, steps_per_execution=training.STEPS_AT_ONCE)
    one_hot = np.eye(N_CLASSES, dtype=np.float32)[targets]
    about = {"name": f"Keras {keras.__version__}", "parameters": model.count_params()}
    return about, lambda: model.fit(x, one_hot, batch_size=BATCH, epochs=EPOCHS, verbose=0, shuffle=False)


def torch_side(folder: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    """Build the network of Keras' weights and compare its answers; return what there is to say of it and its work."""
    import torch

    torch.set_num_threads(int(THREADS))
    torch.manual_seed(0)
    x, targets = examples()
    pictures, classes = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(targets)
    stored = np.load(folder / "weights.npz")
    weights = [stored[name] for name in stored.files]
    net = torch_network(weights)
    with torch.no_grad():
        answers = torch.softmax(net.eval()(pictures[:BATCH]), dim=1).numpy()
    apart = float(np.abs(answers - np.load(folder / "answers.npy")).max())

    def epoch_in(memory_format: Any) -> Callable[[], None]:
        model = torch_network(weights).to(memory_format=memory_format).train()
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=1e-7)
        loss = torch.nn.CrossEntropyLoss()

        def epoch() -> None:
            for first in EPOCHS * list(range(0, N_CLIPS, BATCH)):
                batch = pictures[first : first + BATCH].contiguous(memory_format=memory_format)
                optimizer.zero_grad()
                loss(model(batch), classes[first : first + BATCH]).backward()
                optimizer.step()

        return epoch

    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    epochs = {name: epoch_in(memory_format) for name, memory_format in formats.items()}
    took = {name: statistics.median([seconds(epoch) for _ in range(3)]) for name, epoch in epochs.items()}
    best = min(took, key=took.get)
    learned = sum(parameter.numel() for parameter in net.parameters())
    moving = sum(buffer.numel() for name, buffer in net.named_buffers() if "running" in name)
    about = {"name": f"PyTorch {torch.__version__}, {best}", "parameters": learned + moving, "apart": apart}
    return about, epochs[best]


def torch_network(weights: list[np.ndarray]) -> Any:
    """Build `compact` in PyTorch with weights in Keras' order and layout."""
    import torch
    from torch import nn

    given = iter(torch.from_numpy(one.copy()) for one in weights)
    layers: list[nn.Module] = []
    channels, shape = 1, CONFIG.shape
    for row in models.get_spec("compact"):
        if row.kind == "average":
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(row.dropout)]
            continue
        # As Keras pads: where the zeros cannot be the same on both sides, there is one more after than before.
        missing = [max((-(-side // row.stride) - 1) * row.stride + row.kernel - side, 0) for side in shape]
        height, width = ((total // 2, total - total // 2) for total in missing)
        even = height[0] == height[1] == width[0] == width[1]
        if not even:
            layers.append(nn.ZeroPad2d((*width, *height)))
        padding = height[0] if even else 0
        conv = nn.Conv2d(channels, row.units, row.kernel, stride=row.stride, padding=padding, bias=False)
        norm = nn.BatchNorm2d(row.units, eps=1e-3, momentum=1 - models.BATCH_NORM_MOMENTUM)
        conv.weight.data = next(given).permute(3, 2, 0, 1).contiguous()
        norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = (next(given) for _ in range(4))
        layers += [conv, norm, nn.ReLU(), *([nn.MaxPool2d(row.pool)] if row.pool > 1 else [])]
        channels, shape = row.units, tuple(-(-side // row.stride) // row.pool for side in shape)
    dense = nn.Linear(channels, N_CLASSES)
    dense.weight.data, dense.bias.data = next(given).T.contiguous(), next(given)
    return nn.Sequential(*layers, dense)


def study_side(folder: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    """Return the study's own training by number of epochs; what compiling takes is the same for any."""
    x, targets = examples()
    np.save(folder / "features.npy", (x[..., 0] * 10 - 40).astype(np.float16))
    names = tuple(f"class {number}" for number in range(N_CLASSES))
    clip = [f"{row:04d}" for row in range(N_CLIPS)]
    segments = pd.DataFrame({"row": range(N_CLIPS), "clip_id": clip, "target": targets, "group": clip})
    store = FeatureStore(folder, CONFIG, names, segments, pd.DataFrame(), "random")
    scaler = fit_scaler(store, segments.row.to_numpy())
    training.make_deterministic(0)

    def fit(n_epochs: int) -> None:
        config = TrainConfig(epochs=n_epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, patience=n_epochs)
        table = models.get_spec("compact")
        training._fit(store, scaler, segments, segments[:N_VALIDATION], table, config, 0)

    return {"name": "as the study trains", "epochs": fit}, lambda: None


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def serve(side: str, folder: Path) -> None:
    """Say what this side is, then train and say how long it took for every line that comes in."""
    sides = {"keras": keras_side, "torch": torch_side, "study": study_side}
    about, epoch = sides[side](folder)
    fit = about.pop("epochs", None)
    if fit is None:
        epoch()
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        took = seconds(epoch) if fit is None else seconds(lambda: fit(1 + EPOCHS)) - seconds(lambda: fit(1))
        print(took, flush=True)


class Side:
    """One side in a process of its own."""

    def __init__(self, side: str, folder: str) -> None:
        command = [sys.executable, __file__, side, folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self._process.stdout.readline())
        self.took: list[float] = []

    def train(self) -> None:
        """Let it train once."""
        print(file=self._process.stdin, flush=True)
        self.took.append(float(self._process.stdout.readline()))

    @property
    def clips_per_s(self) -> float:
        """Median over the rounds."""
        return EPOCHS * N_CLIPS / statistics.median(self.took)

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Print everything."""
    print(f"training compact on {CONFIG.shape[0]} x {CONFIG.shape[1]}, batches of {BATCH}, {THREADS} thread")
    names = ["keras", "torch", "study"] if importlib.util.find_spec("torch") else ["keras", "study"]
    with tempfile.TemporaryDirectory() as folder:
        sides = {name: Side(name, folder) for name in names}
        for _ in range(ROUNDS):
            for side in sides.values():
                side.train()
        for side in sides.values():
            side.close()
    keras, torch = sides["keras"], sides.get("torch")
    if torch is None:
        print(NO_TORCH)
    else:
        counts = {side.about["parameters"] for side in (keras, torch)}
        if len(counts) > 1 or torch.about["apart"] > TOLERANCE:
            raise SystemExit(f"not the same network: {counts} parameters, answers {torch.about['apart']:.1e} apart")
        print(f"the same network: {counts.pop():,} parameters, answers at most {torch.about['apart']:.1e} apart")
    for side in sides.values():
        ratio = ""
        if torch is not None and side is not torch:
            ratio = statistics.median(b / a for a, b in zip(side.took, torch.took, strict=True))
            ratio = f"  {ratio:4.2f} x PyTorch" + (f" (goal {GOAL})" if side is keras else "")
        print(f"{side.about['name']:34} {side.clips_per_s:5.0f} clips/s{ratio}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
