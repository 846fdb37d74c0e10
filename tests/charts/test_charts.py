"""Every chart draws what it is given, the same to the byte each time, from stored arrays alone."""

import io

import numpy as np
import pytest
from PIL import Image

from instrlib import charts
from instrlib.charts import curves, style
from instrlib.core.io import InstrlibError, write_arrays

RNG = np.random.default_rng(0)
NAMES = [f"model {letter}" for letter in "abcd"]
SCORES = np.array([0.2, 0.5, 0.4, 0.7])
ENDS = {"low": SCORES - 0.1, "high": SCORES + 0.1}
PICTURES = {"spectra": RNG.normal(-40, 10, (2, 8, 20)), "titles": ["a", "b"]}
TRUTH = {"truth_label": ["flute"], "truth_start_s": [1.0], "truth_end_s": [4.0]}

EXAMPLES = {
    "dots": {"names": NAMES, "values": SCORES, **ENDS, "reference": 0.25},
    "lines": {"x": [1, 2, 3, 4], "values": [SCORES, SCORES / 2], "low": [SCORES - 0.1] * 2, "high": [SCORES + 0.1] * 2},
    "bars": {"names": NAMES, "values": [[1, 2, 3, 4], [4, 3, 2, 1]], "series": ["clips", "groups"]},
    "histogram": {"values": RNG.lognormal(1, 1, 50), "reference": 3.0},
    "heat_map": {"values": [[0.9, 0.1], [0.3, np.nan]], "rows": ["a", "b"], "columns": ["a", "b"]},
    "pareto": {"x": [1.0, 2.0, 4.0, 8.0], "y": SCORES, "names": NAMES, **ENDS},
    "reliability": {"confidence": [0.2, 0.5, 0.8], "accuracy": [0.3, 0.5, 0.6], "share": [0.3, 0.69, 0.01], "ece": 0.1},
    "box": {"values": RNG.normal(size=(30, 2)), "kinds": ["healthy", "aged", "broken"] * 10, "panels": ["a", "b"]},
    "spectrograms": PICTURES | {"hop_s": 0.1, "frequencies_hz": np.geomspace(100, 8_000, 8)},
    "timeline": {"classes": ["flute", "piano"], "hop_s": 1.0, "duration_s": 10.0, **TRUTH}
    | {"scores": RNG.uniform(size=(10, 2)), "active": RNG.uniform(size=(10, 2)) > 0.3},
    "parallel_coordinates": {"names": ["rate", "blocks"], "values": [[0.1, 2], [0.01, 3], [0.001, 4]]}
    | {"score": [0.5, 0.6, np.nan], "log": [True, False], "highlighted": [False, True, False], "score_name": "score"},
    "scatter": {"x": RNG.normal(size=20), "y": RNG.normal(size=20), "kinds": ["a", "b"] * 10},
}
EACH = pytest.mark.parametrize("name", charts.CHARTS)


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_()[0])).convert("L"), dtype=int)


def drawn(name: str, **changed):
    return charts.CHARTS[name](**EXAMPLES[name] | changed)


@EACH
def test_a_stored_chart_is_drawn_again_to_the_byte(name, tmp_path):
    path = tmp_path / "x.npz"
    charts.store(path, charts.CHARTS[name], **EXAMPLES[name])
    first, second = (charts.save(charts.draw_stored(path), tmp_path / folder, "x") for folder in "ab")
    assert [one.read_bytes() for one in first] == [other.read_bytes() for other in second]
    assert [one.suffix for one in first] == [".png", ".svg"]


@EACH
def test_every_number_that_it_takes_changes_the_picture(name):
    before = pixels(drawn(name))
    numbers = {argument: np.asarray(value) for argument, value in EXAMPLES[name].items()}
    for argument, array in numbers.items():
        if array.dtype.kind == "f" and argument not in ("hop_s", "duration_s"):
            moved = array * 1.5 + 0.01 * np.arange(array.size).reshape(array.shape)
            after = pixels(drawn(name, **{argument: moved if array.ndim else float(moved)}))
            assert after.shape != before.shape or (after != before).any(), argument


@pytest.mark.parametrize("name", ["$a_b", "音楽", "x" * 300, "", "a\nb"])
def test_a_name_cannot_break_a_chart(name):
    assert pixels(drawn("dots", names=[name, "b", "c", "d"])).min() < 50


def test_dots_stand_at_their_values_with_their_intervals_and_differences_have_signs_and_a_margin():
    axes = drawn("dots").axes[0]
    (points,) = [line for line in axes.lines if len(line.get_xdata()) == len(NAMES)]
    np.testing.assert_allclose(points.get_xdata(), SCORES)
    ends = [path.vertices[:, 0] for path in axes.collections[0].get_paths()]
    np.testing.assert_allclose(ends, np.stack([ENDS["low"], ENDS["high"]], axis=1))
    assert [text.get_text() for text in axes.get_yticklabels()] == NAMES
    axes = drawn("dots", signed=True, margin=0.05, reference=None).axes[0]
    low, high = axes.get_xlim()
    assert low == -high and {patch.get_width() for patch in axes.patches} == {0.1}
    assert "+0.20" in {text.get_text() for text in axes.texts}


@pytest.mark.parametrize("n", [8, 12])
def test_each_kind_has_its_own_colour_whatever_their_order_and_none_is_dropped(n):
    kinds = [f"notebook {number:02d}" for number in range(n)]
    figure = charts.pareto(x=np.arange(1.0, n + 1), y=np.linspace(0.9, 0.1, n), names=kinds, kinds=kinds)
    assert set(kinds) <= {text.get_text() for text in figure.legends[0].get_texts()}
    assert len(set(style.colours_of(kinds).values())) == n
    verdicts = ["better", "worse", "equivalent", "inconclusive"]
    colours, turned = style.colours_of(verdicts), style.colours_of(verdicts[::-1])
    assert all(colours[name][0] == turned[name][0] for name in verdicts)


def test_a_front_is_what_no_other_point_beats():
    x, y = RNG.integers(1, 30, 60).astype(float), RNG.integers(1, 30, 60).astype(float)
    front = curves.pareto_front(x, y)
    beaten = ((x <= x[:, None]) & (y > y[:, None]) | (x < x[:, None]) & (y >= y[:, None])).any(axis=1)
    best = set(zip(x[~beaten], y[~beaten], strict=True))
    assert {(x[i], y[i]) for i in front} == best and len(front) == len(best)


@pytest.mark.parametrize("length", [10, 60])
def test_a_legend_has_one_entry_a_name_and_stays_inside_the_figure(length):
    figure = drawn("lines", names=["training", "training"], low=None, high=None)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 1
    names = [f"{letter} " + "m" * length for letter in "abc"]
    figure = drawn("lines", values=[SCORES] * 3, names=names, low=None, high=None)
    box, width = figure.legends[0].get_window_extent(), figure.bbox.width
    assert box.x0 >= 0 and box.x1 <= width and box.y0 > figure.axes[0].get_window_extent().y1


def test_bins_with_few_clips_are_hollow_and_cells_without_a_number_hatched():
    points = {line.get_fillstyle(): len(line.get_xdata()) for line in drawn("reliability").axes[1].lines[1:]}
    assert points == {"full": 2, "none": 1}
    axes = drawn("heat_map").axes[0]
    assert axes.patch.get_hatch() and axes.collections[0].get_array().mask.tolist() == [[False, False], [False, True]]


def test_spectrograms_share_their_colours_and_begin_half_a_frame_before_their_start():
    for shared, n in ((True, 1), (False, 2)):
        figure = drawn("spectrograms", shared=shared, start_s=6.0)
        assert len({axes.images[0].get_clim() for axes in figure.axes if axes.images}) == n
    assert figure.axes[0].images[0].get_extent()[:2] == pytest.approx((5.95, 7.95))
    assert drawn("spectrograms", spectra=np.zeros((0, 8, 20)), titles=[]).texts


@pytest.mark.parametrize("held", [{"chart": "no_such"}, {"chart": "dots", "nonsense": 1}, {"values": [1.0]}])
def test_foreign_arrays_are_refused(held, tmp_path):
    write_arrays(tmp_path / "x.npz", **held)
    with pytest.raises(InstrlibError, match=r"x\.npz"):
        charts.draw_stored(tmp_path / "x.npz")
    with pytest.raises(TypeError, match="colour"):
        charts.store(tmp_path / "x.npz", charts.dots, names=["a"], values=[1.0], colour="red")
