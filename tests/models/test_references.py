"""The published networks as data: rebuilt to the last parameter."""

import numpy as np
import pytest

from instrlib.models import references
from instrlib.models.layers import build, count_multiply_adds

DENSE = 128 * 1024 + 4 * 1024 + 1024 * 512 + 4 * 512 + 512 * 20 + 20
KERNELS = 9 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 4 * (16 + 32 + 64)
FLAT = (128 // 8) * (517 // 2 // 2 // 2) * 64


@pytest.mark.parametrize(
    ("name", "shape", "n_classes", "parameters"),
    [
        ("freesound-cutmix", (13, 275), 5, 3_664_413),  # printed by its authors
        ("nsynth-condition", (128, 128), 8, 6_517_512),  # "6.52 M"
        ("layered-four", (128, 517), 4, KERNELS + FLAT * 128 + 128 + 128 * 4 + 4),
        ("openmic-vggish", (128, 130), 20, DENSE),
    ],
)
def test_rebuilt_networks_have_the_parameters_of_their_descriptions(name, shape, n_classes, parameters):
    one = references.REFERENCES[name]
    assert one.features.shape == shape
    assert build(one.spec, (*shape, 1), n_classes).count_params() == parameters


def test_irmas_app_takes_about_157_million_multiply_adds():
    one = references.REFERENCES["irmas-app"]
    grids, kernels = [128 * 130, 64 * 65, 32 * 32], [9 * 32, 9 * 32 * 64, 9 * 64 * 128]
    expected = int(np.dot(grids, kernels)) + 128 * 128 + 128 * 10
    assert count_multiply_adds(build(one.spec, (*one.features.shape, 1), 10)) == expected
