"""Networks trained in seconds, for the tests that make them smaller."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def dense(small: Any, inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a tiny network trained on the small corpus from two seeds."""
    from instrlib.core.config import TrainConfig
    from instrlib.models import variants
    from instrlib.models.layers import Layer

    table = (Layer("conv", 12, 5, 2, 2, True), Layer("conv", 16, 3, 1, 2, True), Layer("average", dropout=0.3))
    variant = variants.Variant("dense", table, TrainConfig(epochs=6), small.store.folder)
    folder: Path = tmp_path_factory.mktemp("dense")
    return variants.run_variants(folder, [variant], splits=inputs.splits, seeds=(0, 1), workers=2)["dense"]
