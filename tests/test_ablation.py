"""Each row of the ablation differs from the full model in one thing, and can be built and trained."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from instrlib import findings
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError
from instrlib.data.splits import load_split
from instrlib.models import ablation
from instrlib.models.layers import build, get_spec
from instrlib.models.references import get_reference, settings

FEATURES = FeatureConfig()
ROWS = ablation.rows(get_spec("small"), TrainConfig(), FEATURES)


def test_the_full_model_comes_first_and_names_are_unique():
    assert ROWS[0].name == ablation.FULL
    assert ROWS[0].spec == get_spec("small")
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row.name)
def test_a_row_differs_from_the_full_model_in_the_one_thing_that_it_is_about(row):
    differing = {name for name in ("spec", "config", "features") if getattr(row, name) != getattr(ROWS[0], name)}
    assert differing == {{"network": "spec", "training": "config", "input": "features"}[row.about]}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_can_be_built_on_its_input(row):
    network = build(row.spec, (*row.features.shape, 1), 12)
    assert network.output.shape == (None, 12)


def test_strides_instead_of_pooling_leave_a_picture_of_the_same_size_to_one_frame():
    by_name = {row.name: row for row in ROWS}

    def last_picture(spec):
        network = build(spec, (*FEATURES.shape, 1), 3)
        return np.array([layer.output.shape[1:] for layer in network.layers if len(layer.output.shape) == 4][-1])

    strided, pooled = (last_picture(spec) for spec in (by_name["strides instead of pooling"].spec, get_spec("small")))
    np.testing.assert_allclose(strided, pooled, atol=1)


def test_changes_of_width_and_depth_change_the_size_as_they_say():
    parameters = {row.name: build(row.spec, (*FEATURES.shape, 1), 12).count_params() for row in ROWS}
    assert parameters["half the width"] < parameters["one convolution fewer"] < parameters[ablation.FULL]
    assert parameters[ablation.FULL] < parameters["one convolution more"] < parameters["double the width"]


def test_the_rows_of_the_reference_have_the_layers_that_they_name():
    rows = ablation.reference_rows("quick")
    assert rows[0].name == ablation.REFERENCE_FULL and rows[0].spec == get_reference("freesound-cutmix").spec
    for row, reported in zip(rows, ablation.REPORTED, strict=True):
        kinds = [layer.kind for layer in row.spec]
        assert (kinds.count("conv"), kinds.count("dense")) == (reported.n_conv, reported.n_dense)
        assert (row.config.epochs, row.config.augment.mix) == (settings("freesound-cutmix", "quick").epochs, "none")


def test_a_network_without_the_mean_at_its_end_is_refused():
    with pytest.raises(ConfigError, match="ends with a convolution and the mean"):
        ablation.rows(get_reference("freesound-cutmix").spec, TrainConfig(), FEATURES)


def test_each_input_gets_its_own_features_of_the_same_clips(small, tmp_path):
    rows = ablation.rows(get_spec("small"), TrainConfig(), dataclasses.replace(FEATURES, n_mels=32, hop_length=1024))
    made = {variant.name: variant for variant in ablation.variants(rows, small.clips, root=tmp_path)}
    assert len({variant.store for variant in made.values()}) == 6
    assert made[ablation.FULL].store == made["half the width"].store
    from instrlib.data.store import open_store

    for variant in made.values():
        load_split(small.split_path, open_store(variant.store).segments)


def test_the_cheapest_variant_not_shown_to_be_worse_is_named_with_what_it_may_lose():
    table = pd.DataFrame(
        {"difference": [-0.2, -0.1], "low": [-0.3, -0.25], "high": [-0.1, 0.05], "p_holm": [0.01, 0.4]},
        index=["half the width", "MFCC"],
    )
    work = pd.DataFrame({"multiply_adds_a_clip": [4e6, 1e6, 2e6]}, index=[ablation.FULL, "half the width", "MFCC"])
    sentence = findings.cheaper_sentence(table, work, ablation.FULL)
    assert "“MFCC” takes the least work: 2.0 million multiply-adds a clip instead of 4.0" in sentence
    assert sentence.endswith("-0.100 [-0.250, +0.050], which leaves room for a loss of up to 0.250.")
    worse = table.assign(p_holm=0.01)
    assert findings.cheaper_sentence(worse, work, ablation.FULL).startswith("Every variant that takes less work")


def test_a_small_study_makes_the_first_changes_of_each_kind():
    few = ablation.rows(get_spec("small"), TrainConfig(), FEATURES, per_kind=1)
    assert [row.name for row in few] == [ablation.FULL, "without batch norm", "with CutMix", "MFCC"]
    assert [row.name for row in ablation.reference_rows("smoke", per_kind=1)] == [
        "3 conv + 3 dense",
        "0 conv + 3 dense",
    ]
