"""Every chart draws what it is given, the same to the byte each time, from stored arrays alone, also published ones."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instrlib import charts
from instrlib.charts import style
from instrlib.core.io import InstrlibError, hash_file, read_arrays, read_json, write_arrays

RNG, NAMES = np.random.default_rng(0), [f"model {letter}" for letter in "abcd"]
SCORES = np.array([0.2, 0.5, 0.4, 0.7])
ENDS = {"low": SCORES - 0.1, "high": SCORES + 0.1}

EXAMPLES = {
    "dots": {"names": NAMES, "values": SCORES, **ENDS, "reference": 0.25},
    "lines": {"x": [1, 2, 3, 4], "values": [SCORES, SCORES / 2], "low": [SCORES - 0.1] * 2, "high": [SCORES + 0.1] * 2},
    "bars": {"names": NAMES, "values": [[1, 2, 3, 4], [4, 3, 2, 1]], "series": ["clips", "groups"]},
    "histogram": {"values": RNG.lognormal(1, 1, 50), "reference": 3.0},
    "heat_map": {"values": [[0.9, 0.1], [0.3, np.nan]], "rows": ["a", "b"], "columns": ["a", "b"]},
    "pareto": {"x": [1.0, 2.0, 4.0, 8.0], "y": SCORES, "names": NAMES, "kinds": NAMES, **ENDS},
    "reliability": {"confidence": [0.2, 0.5, 0.8], "accuracy": [0.3, 0.5, 0.6], "share": [0.3, 0.69, 0.01], "ece": 0.1},
    "box": {"values": RNG.normal(size=(30, 2)), "kinds": ["healthy", "aged", "broken"] * 10, "panels": ["a", "b"]},
    "spectrograms": {"spectra": RNG.normal(-40, 10, (2, 8, 20)), "titles": ["a", "b"]}
    | {"hop_s": 0.1, "frequencies_hz": np.geomspace(100, 8_000, 8)},
    "timeline": {"classes": ["flute", "piano"], "hop_s": 1.0, "duration_s": 10.0}
    | {"truth_label": ["flute"], "truth_start_s": [1.0], "truth_end_s": [4.0]}
    | {"scores": RNG.uniform(size=(10, 2)), "active": RNG.uniform(size=(10, 2)) > 0.3},
    "scatter": {"x": RNG.normal(size=20), "y": RNG.normal(size=20), "kinds": ["a", "b"] * 10, "panels": ["c"] * 20},
}

REPOSITORY = Path(__file__).resolve().parents[2]
PUBLISHED = [path for path in sorted(REPOSITORY.glob("reports/*/arrays/*.npz")) if "chart" in read_arrays(path)]


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_()[0])).convert("L"), dtype=int)


def drawn(name: str, **changed):
    return charts.CHARTS[name](**EXAMPLES[name] | changed)


@pytest.mark.parametrize("name", charts.CHARTS)
def test_a_stored_chart_is_drawn_again_to_the_byte_and_every_number_changes_the_picture(name, tmp_path):
    charts.store(tmp_path / "x.npz", charts.CHARTS[name], **EXAMPLES[name])
    for stem in "ab":
        charts.save(charts.draw_stored(tmp_path / "x.npz"), tmp_path, stem)
    assert all(hash_file(tmp_path / f"a.{end}") == hash_file(tmp_path / f"b.{end}") for end in ("png", "svg"))
    before = pixels(drawn(name))
    for argument, value in EXAMPLES[name].items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and argument not in ("hop_s", "duration_s"):
            after = pixels(drawn(name, **{argument: array * 1.5 + 0.01 * np.arange(array.size).reshape(array.shape)}))
            assert after.shape != before.shape or (after != before).any(), argument


def test_dots_have_names_values_and_intervals_and_differences_signs_and_a_margin_and_no_name_breaks_them():
    assert pixels(drawn("dots", names=["$a_b", "音楽", "x" * 300 + "\n", ""])).min() < 50
    axes = drawn("dots").axes[0]
    (points,) = [line for line in axes.lines if len(line.get_xdata()) == len(NAMES)]
    np.testing.assert_allclose(points.get_xdata(), SCORES)
    ends = [path.vertices[:, 0] for path in axes.collections[0].get_paths()]
    np.testing.assert_allclose(ends, np.stack([ENDS["low"], ENDS["high"]], axis=1))
    assert [text.get_text() for text in axes.get_yticklabels()] == NAMES
    axes = drawn("dots", signed=True, margin=0.05, reference=None).axes[0]
    assert sum(axes.get_xlim()) == 0 and {patch.get_width() for patch in axes.patches} == {0.1}
    assert "+0.20" in {text.get_text() for text in axes.texts}


def test_each_kind_has_its_own_colour_whatever_their_order_and_a_front_is_what_no_other_point_beats():
    x, y = RNG.integers(1, 30, (2, 60)).astype(float)
    kinds = [f"notebook {number % 12:02d}" for number in range(60)]
    figure = charts.pareto(x=x, y=y, names=kinds, kinds=kinds)
    assert set(kinds) <= {text.get_text() for text in figure.legends[0].get_texts()}
    assert len(set(style.colours_of(kinds).values())) == 12
    front = list(zip(*figure.axes[0].lines[0].get_data(), strict=True))
    beaten = ((x <= x[:, None]) & (y > y[:, None]) | (x < x[:, None]) & (y >= y[:, None])).any(axis=1)
    assert front == sorted(set(zip(x[~beaten], y[~beaten], strict=True)))
    verdicts = ["better", "worse", "equivalent", "inconclusive"]
    turned = style.colours_of(verdicts[::-1])
    assert all(turned[name][0] == colour for name, (colour, _) in style.colours_of(verdicts).items())


@pytest.mark.parametrize("names", [["training"] * 2, [letter + " m" * 60 for letter in "ab"]])
def test_a_legend_has_one_entry_a_name_and_stays_inside_the_figure(names):
    figure = drawn("lines", names=names, low=None, high=None)
    assert [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()] == list(dict.fromkeys(names))
    assert len({line.get_color() for line in figure.axes[0].lines}) == len(set(names))
    box, width = figure.legends[0].get_window_extent(), figure.bbox.width
    assert box.x0 >= 0 and box.x1 <= width and box.y0 > figure.axes[0].get_window_extent().y1


def test_few_clips_are_hollow_missing_cells_hatched_and_spectrograms_share_colours_and_begin_half_a_frame_early():
    points = {line.get_fillstyle(): len(line.get_xdata()) for line in drawn("reliability").axes[1].lines[1:]}
    assert points == {"full": 2, "none": 1}
    axes = drawn("heat_map").axes[0]
    assert axes.patch.get_hatch() and axes.collections[0].get_array().mask.tolist() == [[False, False], [False, True]]
    for shared in (True, False):
        figure = drawn("spectrograms", shared=shared, start_s=6.0)
        assert len({axes.images[0].get_clim() for axes in figure.axes if axes.images}) == 2 - shared
    assert figure.axes[0].images[0].get_extent()[:2] == pytest.approx((5.95, 7.95))
    assert drawn("spectrograms", spectra=np.zeros((0, 8, 20)), titles=[]).axes[0].texts


@pytest.mark.parametrize("held", [{"chart": "no_such"}, {"chart": "dots", "nonsense": 1}, {"values": [1.0]}])
def test_foreign_arrays_are_refused(held, tmp_path):
    write_arrays(tmp_path / "x.npz", **held)
    with pytest.raises(InstrlibError, match=r"x\.npz"):
        charts.draw_stored(tmp_path / "x.npz")


@pytest.mark.parametrize("study", sorted({path.parents[1] for path in PUBLISHED}), ids=lambda folder: folder.name)
def test_the_published_figures_are_the_declared_ones_all_differ_and_one_of_each_chart_is_drawn_again(study, tmp_path):
    """Other versions of fonts and libraries may move edges by some grey; the picture stays."""
    entries, folder = read_json(study / "results.json")["notebooks"].values(), REPOSITORY / "figures" / study.name
    captions = {one["name"]: one["caption"] for entry in entries for one in entry.get("figures", [])}
    stored = {path.stem: path for path in PUBLISHED if study in path.parents}
    assert set(stored) == set(captions) and all(captions.values())
    assert {path.name for path in folder.iterdir()} == {f"{name}.{end}" for name in stored for end in ("png", "svg")}
    assert len({hash_file(path) for path in folder.iterdir()}) == 2 * len(stored)
    for name in {str(read_arrays(path)["chart"]): name for name, path in stored.items()}.values():
        charts.save(charts.draw_stored(stored[name]), tmp_path, name)
        with Image.open(tmp_path / f"{name}.png") as new, Image.open(folder / f"{name}.png") as old:
            assert np.abs(np.subtract(new.size, old.size)).max() <= 4
            grey = [np.asarray(one.convert("L").resize(old.size), dtype=float) for one in (new, old)]
        assert np.abs(grey[0] - grey[1]).mean() < 8, name
