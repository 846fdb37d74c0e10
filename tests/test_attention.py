"""Maps of the validation part: kept, averaged, looked at and listened to."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.errors import RunError
from instrlib.core.io import read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.models.layers import get_spec
from instrlib.models.training import part_segments, train_model
from instrlib.studies import attention, cam


@pytest.fixture(scope="module")
def networks(small, tmp_path_factory) -> list[list[Path]]:
    """Two seeds of a network that was trained for a moment."""
    folder, config = tmp_path_factory.mktemp("networks"), TrainConfig(epochs=3)
    tasks = [
        (folder / f"seed-{seed}", small.store.folder, small.split_path, get_spec("small"), config, seed)
        for seed in range(2)
    ]
    return [[network] for network in parallel_map(train_model, tasks, workers=1)]


@pytest.fixture(scope="module")
def explained(small, networks, tmp_path_factory) -> attention.Explained:
    folder = tmp_path_factory.mktemp("explained")
    return attention.explain(folder, networks, store=small.store, splits=[small.split_path], workers=1)


def planted(*, right: bool = True) -> tuple[attention.Explained, cam.Grid]:
    """Two classes of two segments; the map of class 0 is one cell at (1, 2), that of class 1 one at (0, 0)."""
    grid = cam.Grid(np.array([2.0, 6.0]), np.array([2.0, 6.0, 10.0]), 4, 4, (8, 12))
    maps = np.full((2, 4, 2, 2, 3), -0.5)
    maps[:, :, 0, 1, 2] = [[1.0, 2.0, 1.0, 1.0], [3.0, 4.0, 1.0, 1.0]]
    maps[:, :, 1, 0, 0] = 1.0
    segments = pd.DataFrame(
        {
            "row": range(4),
            "clip_id": list("abcd"),
            "start_s": 0.0,
            "label": ["flute", "flute", "piano", "piano"],
            "target": [0, 0, 1, 1],
            "group": list("abcd"),
            "split": "",
            "fold": 0,
        }
    )
    sure = np.array([[0.8, 0.2], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]])
    probabilities = np.stack([sure if right else sure[:, ::-1]] * 2)
    return attention.Explained(segments, ("flute", "piano"), grid, probabilities, maps), grid


class Planted:
    """A store of four pictures of 8 bands and 12 frames, in which everything sounds alike."""

    config = FeatureConfig(n_mels=8, segment_s=11 * 512 / 22_050)
    features = np.full((4, 8, 12), -20, np.float16)


def test_every_validation_segment_is_explained_for_every_class_and_no_other(small, explained):
    segments = part_segments(small.store, small.split, "validation")
    assert explained.segments.row.to_list() == segments.row.to_list()
    assert explained.maps.shape[:3] == (2, len(segments), 3)
    assert explained.probabilities.shape == (2, len(segments), 3)
    np.testing.assert_allclose(explained.probabilities.sum(axis=-1), 1, atol=1e-5)


def test_the_maps_add_up_to_the_answers(explained):
    """Maps and answers belong together: softmax of the maps' means, but for the bias, orders the classes alike."""
    logits = np.log(explained.probabilities)
    means = explained.maps.mean(axis=(-2, -1))
    bias = (logits - means) - (logits - means).mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(bias, bias[:, :1].repeat(bias.shape[1], axis=1), atol=1e-3)


def test_seeds_have_maps_of_their_own(explained):
    assert not np.allclose(explained.maps[0], explained.maps[1], atol=1e-3)


def test_maps_are_kept_and_a_killed_run_goes_on_with_the_same_result(small, networks, explained, tmp_path):
    def explain():
        return attention.explain(tmp_path, networks, store=small.store, splits=[small.split_path], workers=1)

    explain()
    kept = sorted(tmp_path.rglob("*.npz"))
    assert len(kept) == 2
    kept[1].unlink()
    before = kept[0].stat().st_mtime_ns
    again = explain()
    assert kept[0].stat().st_mtime_ns == before and kept[1].is_file()
    np.testing.assert_array_equal(again.maps, explained.maps)


def test_two_processes_give_the_maps_of_one(small, networks, explained, tmp_path):
    found = attention.explain(tmp_path, networks, store=small.store, splits=[small.split_path], workers=2)
    np.testing.assert_array_equal(found.maps, explained.maps)


def test_a_network_of_another_split_is_named(small, networks, tmp_path):
    foreign = shutil.copytree(networks[0][0], tmp_path / "foreign")
    write_json(foreign / "manifest.json", read_json(foreign / "manifest.json") | {"split": "another"})
    with pytest.raises(RunError, match=r"foreign was trained with the split another, not with .*; run the notebook"):
        attention.explain(tmp_path / "kept", [[foreign]], store=small.store, splits=[small.split_path], workers=1)


def test_an_unfinished_network_is_named(small, networks, tmp_path):
    folder = shutil.copytree(networks[0][0], tmp_path / "cut")
    (folder / "manifest.json").unlink()
    with pytest.raises(RunError, match="cut holds no finished training run"):
        attention.explain(tmp_path / "kept", [[folder]], store=small.store, splits=[small.split_path], workers=1)


def test_grad_cam_is_there_for_every_layer_and_at_the_last_is_the_class_activation_map(small, networks, explained):
    segment, answer = explained.segments.iloc[0], int(explained.answers[0, 0])
    found = attention.inspect_layers(networks[0][0], small.store, int(segment.row), answer, workers=1)
    assert found.table.index.to_list() == ["relu1", "pool1", "relu2", "pool2", "relu3"]
    assert found.maps.shape == (5, *small.store.config.shape)
    assert found.difference < 1e-3
    n_cells = explained.maps[0, 0, 0].size
    expected = cam.upsample(np.maximum(explained.maps[0, 0, answer], 0) / n_cells, explained.grid)
    np.testing.assert_allclose(found.maps[-1], expected, rtol=1e-3, atol=1e-5 * max(expected.max(), 1e-6))


def test_the_average_of_a_class_is_over_its_own_segments_and_relative_to_an_even_spread():
    explained, _ = planted()
    averages = attention.class_averages(explained)
    assert averages.shape == (2, 2, 8, 12)
    np.testing.assert_allclose(averages.mean(axis=(-2, -1)), 1)
    assert np.unravel_index(averages[0, 0].argmax(), (8, 12)) == (6, 10)
    assert (averages[0, 0][:3] == 0).all()


def test_clips_count_by_how_much_their_maps_say():
    explained, grid = planted()
    explained.maps[:, 1, 0] = 0
    explained.maps[:, 1, 0, 0, 0] = 1e-6  # says next to nothing, elsewhere
    averages = attention.class_averages(explained)
    np.testing.assert_allclose(averages[0, 0], cam.upsample(cam.shares(explained.maps[0, 0, 0], grid), grid), atol=1e-4)


def test_a_class_of_which_nothing_speaks_has_no_average_and_no_row():
    explained, _ = planted()
    explained.maps[:, :, 1] = -1
    averages = attention.class_averages(explained)
    assert np.isnan(averages[:, 1]).all()
    levels = attention.class_levels(explained, Planted)
    table = attention.frequency_summary(averages, levels, explained, Planted.config)
    assert table.index.to_list() == ["flute"]


def test_the_summary_finds_the_bands_of_the_map_and_of_the_sound():
    explained, _ = planted()
    levels = attention.class_levels(explained, Planted)
    np.testing.assert_allclose(levels, 1)
    table = attention.frequency_summary(attention.class_averages(explained), levels, explained, Planted.config)
    bands_hz = cam.band_centres_hz(Planted.config)
    assert bands_hz[4] < table.median_hz["flute"] < bands_hz[7]
    assert bands_hz[0] < table.median_hz["piano"] < bands_hz[2]
    assert (table.low_hz <= table.median_hz).all() and (table.median_hz <= table.high_hz).all()
    assert table.sound_hz["flute"] == pytest.approx(table.sound_hz["piano"])
    assert table.recognised.to_list() == [1, 1]
    assert (table.seeds_hz < 1).all()


def test_the_surest_right_and_wrong_answers_are_found_one_for_each_kind():
    explained, _ = planted()
    assert attention.surest(explained, right=True, n=5).clip_id.to_list() == ["b", "c"]
    assert attention.surest(explained, right=False, n=5).empty
    wrong, _ = planted(right=False)
    found = attention.surest(wrong, right=False, n=1)
    assert found[["clip_id", "label", "predicted", "confidence"]].to_numpy().tolist() == [["b", "flute", "piano", 0.9]]


def test_overlays_show_the_maps_of_the_answer_and_of_the_truth():
    explained, grid = planted(right=False)
    chosen = attention.surest(explained, right=False, n=1)
    shown = attention.overlays(explained, chosen, Planted, of=["predicted", "label"])
    assert shown["titles"] == ["answered: piano 0.90", "true: flute 0.10"]
    for picture, target in zip(shown["maps"], (1, 0), strict=True):
        expected = cam.upsample(np.maximum(explained.maps[0, 1, target], 0), grid)
        np.testing.assert_allclose(picture, expected / expected.max(), atol=0.006)
    assert shown["spectra"].dtype == np.int8 and (shown["spectra"] == -20).all()
    assert len(attention.overlays(explained, chosen.head(0), Planted, of=["label"])["maps"]) == 0


def test_the_most_active_part_lies_where_the_map_is_in_time_and_frequency():
    explained, _ = planted()
    regions = attention.active_regions(explained, Planted, window_s=4 * Planted.config.hop_s)
    assert regions.clip_id.to_list() == ["b", "c"]
    flute, piano = regions.itertuples()
    assert flute.offset_s == pytest.approx(8 * Planted.config.hop_s)
    assert piano.offset_s == 0
    bands_hz = cam.band_centres_hz(Planted.config)
    assert flute.low_hz < bands_hz[6] < flute.high_hz
    assert flute.low_hz > bands_hz[3]
    assert piano.high_hz < bands_hz[4]
    assert 0.5 < flute.share < 1


def test_a_class_that_is_never_recognised_has_no_part_to_listen_to_and_that_is_shown_as_an_empty_table(small):
    explained, _ = planted(right=False)
    regions = attention.active_regions(explained, Planted)
    assert regions.empty
