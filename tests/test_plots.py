"""Figures are functions of plain arrays, show themselves once in a notebook, and give the same files every time."""

import gc
import inspect
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from instrlib import plots
from instrlib.core.errors import DiskError, InstrlibError
from instrlib.core.io import hash_file, padded, write_arrays
from instrlib.evaluation.metrics import reliability
from instrlib.plots import base

CLASSES = np.array(
    ["cello", "clarinet", "acoustic_guitar", "electric_guitar", "organ", "piano", "Violin_or_fiddle", "voice"]
)


def arguments(n_classes: int = 12) -> dict[str, dict]:
    """Arguments for every figure, all of which an npz file holds."""
    rng = np.random.default_rng(n_classes)
    classes = np.array([f"{CLASSES[number % 8]}_{number}" for number in range(n_classes)])
    f1 = rng.uniform(0.2, 1, n_classes)
    scores = {"low": f1 - 0.1, "high": np.minimum(f1 + 0.1, 1)}
    answers = rng.dirichlet(np.ones(4), 200)
    spectra = rng.uniform(-80, 0, (n_classes, 32, 40))
    bands_hz = np.geomspace(60, 10_000, 32)
    losses = padded([np.linspace(2, 0.1, 20), np.linspace(2, 0.3, 12)])
    return {
        "class_balance": {
            "classes": classes,
            "n_clips": rng.integers(20, 300, n_classes),
            "n_groups": rng.integers(2, 20, n_classes),
        },
        "mixed_spectrograms": {
            "spectra": np.tile(spectra, (4, 1, 1))[:4],
            "names": np.array(["an example", "its partner", "CutMix", "CutMix and masks"]),
            "shares": np.array([[1, 0, 0], [0, 1, 0], [0.4, 0.6, 0], [0.2, 0.5, 0.3]]),
            "classes": CLASSES[:3],
            "hop_s": 0.02,
            "mel_frequencies_hz": bands_hz,
        },
        "spectrogram_grid": {"spectra": spectra, "titles": classes, "hop_s": 0.02, "mel_frequencies_hz": bands_hz},
        "feature_settings": {
            "values": padded([spectra[0], spectra[0][::2], rng.normal(size=(13, 20))]),
            "titles": np.array(["32 bands", "16 bands", "13 MFCC"]),
            "hop_s": np.array([0.02, 0.02, 0.04]),
            "frequencies_hz": padded([bands_hz, bands_hz[::2], np.full(13, np.nan)]),
        },
        "split_overview": {
            "classes": classes,
            "parts": np.array(["train", "validation", "test"]),
            "counts": rng.integers(0, 90, (3, n_classes)),
        },
        "scores_by_kind": {
            "names": classes,
            "kinds": np.array(["trivial", "traditional", "published", "ours"])[np.arange(n_classes) * 4 // n_classes],
            "scores": f1,
            **scores,
            "reference": classes[-1],
        },
        "clips_curve": {
            "models": np.array(["from scratch", "own, from rendered", "yamnet", "plain statistics"]),
            "clips": np.array([1, 2, 4, 8, 13.1]),
            "scores": np.linspace(0.3, 0.8, 5) + np.linspace(0, 0.15, 4)[:, None],
            "low": np.linspace(0.2, 0.7, 5) + np.linspace(0, 0.15, 4)[:, None],
            "high": np.where(np.arange(4)[:, None] == 1, np.nan, np.linspace(0.4, 0.85, 5)[None]),
            "chance": 0.1,
        },
        "scores_by_number": {
            "names": np.array(["single, thresholds", "single, fixed .5", "trained on mixtures", "all present"]),
            "numbers": np.array([1, 2, 3, 4]),
            "scores": np.linspace(0.6, 0.4, 4) + np.linspace(0, 0.3, 4)[:, None],
            "low": np.linspace(0.5, 0.3, 4) + np.linspace(0, 0.3, 4)[:, None],
            "high": np.where(np.arange(4) == 3, np.nan, np.linspace(0.7, 0.5, 4) + np.linspace(0, 0.3, 4)[:, None]),
            "metric": "micro F1",
        },
        "recall_by_level": {
            "names": np.array(["single, thresholds", "trained on mixtures"]),
            "above_db": np.array([-np.inf, -12, -6, -3]),
            "up_to_db": np.array([-12.0, -6, -3, 0]),
            "recall": np.array([[0.2, 0.4, 0.6, np.nan], [0.3, 0.5, 0.7, 0.9]]),
            "low": np.array([[0.1, 0.3, 0.5, np.nan], [0.2, 0.4, 0.6, 0.8]]),
            "high": np.array([[0.3, 0.5, 0.7, np.nan], [0.4, 0.6, 0.8, 1.0]]),
            "false_alarms": np.array([0.25, 0.1]),
            "n": np.array([100, 80, 60, 0]),
        },
        "expected_and_named": {
            "spectra": spectra[np.arange(5) % n_classes],
            "present": rng.random((5, n_classes)) < min(1, 3 / n_classes),
            "named": rng.random((2, 5, n_classes)) < min(1, 4 / n_classes),
            "models": np.array(["single", "mixtures"]),
            "classes": classes,
            "hop_s": 0.02,
            "mel_frequencies_hz": bands_hz,
        },
        "measures_by_condition": {
            "values": np.where(rng.random((120, 5)) < 0.1, np.nan, rng.lognormal(size=(120, 5))),
            "measures": np.array(["harmonic-to-noise ratio (dB)", "flatness", "decay_variance", "B", "x" * 60]),
            "logarithmic": np.array([False, True, True, False, True]),
            "condition": np.repeat([0, 1, 2], 40),
            "conditions": np.array(["healthy", "aged", "broken"]),
        },
        "accuracy_by_severity": {
            "names": np.array(["logistic regression", "CNN"]),
            "conditions": np.array(["aged", "broken"]),
            "severity": np.array([0.3, 0.5, 0.7, 0.9]),
            "accuracy": np.array(
                [[[0.3, 0.4, 0.5, 0.6], [0.4, 0.5, np.nan, 0.8]], [[0.5, 0.6, 0.7, 0.9], [0.4, 0.6, 0.8, 0.9]]]
            ),
            "low": np.full((2, 2, 4), 0.2),
            "high": np.full((2, 2, 4), 0.95),
            "healthy": np.array([0.6, 0.7]),
            "n": np.array([[20, 31, 0, 40], [22, 18, 39, 28]]),
        },
        "timeline": {
            "classes": classes,
            "hop_s": 1.0,
            "scores": rng.random((75, n_classes)),
            "active": np.arange(75)[:, None] // 15 % n_classes == np.arange(n_classes),
            "duration_s": 74.2,
            "truth_label": classes[[0, -1]],
            "truth_start_s": np.array([2.5, 40.0]),
            "truth_end_s": np.array([20.0, 74.2]),
        },
        "listened_to": {
            "picture": spectra[0],
            "activation": np.maximum(rng.normal(size=spectra[0].shape), 0),
            "start_s": 12.0,
            "hop_s": 0.02,
            "mel_frequencies_hz": bands_hz,
        },
        "duration_histogram": {"duration_s": rng.uniform(0.3, 30, 100), "segment_s": 3.0},
        "learning_curves": {
            "epoch": np.arange(1, 21),
            "train_loss": losses,
            "validation_loss": losses + 0.1,
            "train_accuracy": 1 - losses / 2,
            "validation_accuracy": 0.9 - losses / 2.5,
            "best_epoch": np.array([19, 8]),
        },
        "confusion_matrix": {"counts": rng.integers(0, 40, (n_classes, n_classes)), "classes": classes},
        "activation_overlays": {
            "spectra": spectra[:7],
            "maps": np.maximum(rng.normal(size=spectra[:7].shape), 0),
            "titles": np.array([f"answered: {name} 0.95" for name in classes[:7]]),
            "hop_s": 0.02,
            "mel_frequencies_hz": bands_hz,
        },
        "class_average_maps": {
            "maps": np.where(np.arange(n_classes)[:, None, None] == 1, np.nan, rng.uniform(0, 4, spectra.shape)),
            "classes": classes,
            "hop_s": 0.02,
            "mel_frequencies_hz": bands_hz,
        },
        "frequency_profiles": {
            "maps": rng.uniform(0, 3, (3, n_classes, 32)),
            "levels": rng.uniform(0, 2, (n_classes, 32)),
            "classes": classes,
            "mel_frequencies_hz": bands_hz,
        },
        "deletion_insertion": {
            "fractions": np.linspace(0, 1, 5),
            "orders": np.array(["the map", "another clip's map", "loudest points", "random points"]),
            "deletion": np.linspace(0.8, 0.1, 5) ** np.arange(1, 5)[:, None],
            "insertion": np.linspace(0.1, 0.8, 5) ** np.arange(1, 5)[:, None],
        },
        "map_similarity": {
            "steps": np.array(["scores", "conv3", "conv2", "conv1"]),
            "correlation": np.array([0.4, 0.2, 0.1, -0.05]),
            "low": np.array([0.3, 0.1, np.nan, -0.2]),
            "high": np.array([0.5, 0.3, np.nan, 0.1]),
            "references": np.array(["another seed", "another clip", "loudness"]),
            "reference_correlation": np.array([0.7, 0.4, 0.2]),
        },
        "reliability_diagram": reliability(rng.integers(4, size=200), answers),
        "per_class_scores": {"classes": classes, "f1": f1, **scores, "support": rng.integers(1, 99, n_classes)},
        "accuracy_against_work": {
            "names": classes,
            "accuracy": f1,
            **scores,
            "multiply_adds": rng.choice([2e6, 4e6, 9e6, 3e7], n_classes),
        },
        "paired_differences": {
            "names": classes,
            "differences": f1 - 0.6,
            "low": np.where(f1 > 0.9, np.nan, f1 - 0.7),
            "high": np.where(f1 > 0.9, np.nan, f1 - 0.5),
            "shown": f1 < 0.5,
            "reference": "compact CNN",
        },
        "model_comparison": {"names": classes, "scores": f1, **scores, "baseline": 0.1, "metric": "macro_f1"},
        "recipes_by_domain": {
            "names": [f"recipe number {row} with a long name" for row in range(n_classes)],
            "domains": ["own test part", "FluidR3_GM", "fsdkaggle2018"],
            "scores": np.where(np.arange(3 * n_classes).reshape(-1, 3) == 5, np.nan, np.linspace(0.3, 0.7, 3)),
            "low": np.full((n_classes, 3), 0.25),
            "high": np.full((n_classes, 3), 0.8),
            "chosen": 1,
        },
        "domain_matrix": {
            "sources": np.array(["rendered", "TimGM6mb", "FluidR3_GM"]),
            "targets": np.array(["rendered", "TimGM6mb", "FluidR3_GM", "fsdkaggle2018"]),
            "scores": np.array([[0.97, np.nan, 0.6, 0.4], [np.nan, 0.95, 0.5, 0.3], [0.55, 0.5, 1.0, 0.05]]),
            "low": np.array([[0.95, np.nan, 0.5, 0.3], [np.nan, 0.9, 0.4, 0.2], [0.45, 0.4, 1.0, np.nan]]),
            "high": np.array([[0.99, np.nan, 0.7, 0.5], [np.nan, 0.99, 0.6, 0.4], [0.65, 0.6, 1.0, np.nan]]),
            "n_common": np.array([[12, 0, 12, 7], [0, 12, 12, 7], [12, 12, 12, 7]]),
            "constant": np.array([[1 / 12, 1 / 12, 1 / 12, 1 / 7]] * 3),
        },
        "embedding_map": {
            "places": rng.normal(size=(120, 2)),
            "classes": np.array([f"class {number % 14}" for number in range(120)]),
            "domains": np.repeat(["rendered", "FluidR3_GM", "a_folder_of_one's_own"], 40),
            "perplexity": 30.0,
        },
        "main_differences": {
            "names": np.array(["02  compact CNN − nearest centroid", "03  CutMix − no augmentation", "04  a − b"]),
            "differences": np.array([0.24, -0.01, np.nan]),
            "low": np.array([0.11, -0.07, np.nan]),
            "high": np.array([0.38, 0.06, np.nan]),
            "shown": np.array([True, False, False]),
        },
        "models_side_by_side": {
            "names": classes,
            "notebooks": np.array(["02", "03", "07"])[np.arange(n_classes) % 3],
            "scores": f1,
            **scores,
            "trivial": np.arange(n_classes) % 5 == 0,
        },
        "score_against_work": {
            "names": classes,
            "notebooks": np.array(["02", "03", "07"])[np.arange(n_classes) % 3],
            "scores": f1,
            "multiply_adds": np.geomspace(2e5, 4e7, n_classes),
            "unbeaten": np.arange(n_classes) % 4 == 0,
        },
    }


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure: matplotlib.figure.Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def overlapping(labels: list) -> bool:
    boxes = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
    return any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


def drawn_x_labels(axes) -> list:
    """Labels of the ticks within the axes; matplotlib keeps a few outside that it does not draw."""
    low, high = sorted(axes.get_xlim())
    return [
        label for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if low <= place <= high
    ]


def beyond_the_edge(figure: matplotlib.figure.Figure, labels: list) -> list[str]:
    """Return the labels that the edge of the picture cuts."""
    inside = figure.bbox.padded(2)
    boxes = [(label.get_text(), label.get_window_extent()) for label in labels if label.get_text()]
    return [text for text, box in boxes if not (inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1))]


def words_of(figure: matplotlib.figure.Figure) -> list:
    """Return all that is written on a figure but for the numbers and names at the ticks."""
    ends = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {id(label) for axis in ends for label in axis.get_ticklabels(which="both")}
    return [text for text in figure.findobj(matplotlib.text.Text) if id(text) not in ticks and text.get_visible()]


def test_every_public_figure_is_registered_takes_keywords_alone_and_is_drawn_here():
    assert set(plots.FIGURES) == set(arguments())
    for name, draw in plots.FIGURES.items():
        assert draw is getattr(plots, name)
        kinds = {parameter.kind for parameter in inspect.signature(draw).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", list(arguments()))
def test_a_figure_drawn_from_its_stored_arrays_is_the_same_to_the_byte(name, tmp_path):
    given = arguments()[name]
    write_arrays(tmp_path / "stored.npz", figure=name, **given)
    direct = plots.save(plots.FIGURES[name](**given), tmp_path / "a", name)
    again = plots.save(plots.draw_stored(tmp_path / "stored.npz"), tmp_path / "b", name)
    for one, other in zip(direct, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(direct[0]) as picture:
        assert picture.width <= plots.WIDTH * plots.DPI * 1.3
        assert np.ptp(np.asarray(picture.convert("L"))) > 100
    assert "<svg" in direct[1].read_text(encoding="utf-8")[:500]


def test_saving_twice_or_after_being_shown_changes_nothing(tmp_path):
    figure = plots.confusion_matrix(**arguments(5)["confusion_matrix"])
    first = [hash_file(path) for path in plots.save(figure, tmp_path, "x")]
    figure._repr_png_()
    assert [hash_file(path) for path in plots.save(figure, tmp_path, "x")] == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "x.svg"]


def test_another_process_with_other_settings_of_the_user_writes_the_same_bytes(tmp_path):
    given = arguments()["split_overview"]
    write_arrays(tmp_path / "stored.npz", figure="split_overview", **given)
    here = plots.save(plots.split_overview(**given), tmp_path / "here", "x")
    (tmp_path / "matplotlibrc").write_text("font.size: 17\naxes.grid: True\nsavefig.dpi: 40\n")
    code = "import sys; from pathlib import Path; from instrlib import plots; p = Path(sys.argv[1]); "
    code += "plots.save(plots.draw_stored(p / 'stored.npz'), p / 'there', 'x')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path)
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


def test_one_thread_leaves_the_style_before_another_takes_it():
    """The settings are those of all threads: left crosswise, one of the two would stay."""
    before, taken = dict(matplotlib.rcParams), threading.Event()

    def other() -> None:
        with base.style():
            taken.set()

    thread = threading.Thread(target=other)
    with base.style(), base.style():
        thread.start()
        assert not taken.wait(0.2)
    thread.join(20)
    assert taken.is_set() and dict(matplotlib.rcParams) == before


def test_files_carry_no_date_and_no_version(tmp_path):
    png, svg = plots.save(plots.model_comparison(**arguments()["model_comparison"]), tmp_path, "x")
    with Image.open(png) as picture:
        assert set(picture.info) <= {"dpi"}
    text = svg.read_text(encoding="utf-8")
    assert "<dc:date>" not in text
    assert "Matplotlib v" not in text


def test_pyplot_knows_nothing_of_the_figures_and_keeps_none_open():
    code = "import sys; from instrlib import plots; "
    code += "plots.duration_histogram(duration_s=[1.0, 2.0], segment_s=1.0)._repr_png_(); "
    code += "print('matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"


def test_importing_the_module_does_not_load_matplotlib():
    code = "import sys, instrlib.plots; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"


def test_a_cell_that_ends_with_a_figure_shows_it_once_and_nothing_else(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    draw = "plots.confusion_matrix(counts=[[3, 1], [0, 4]], classes=['cello', 'Violin_or_fiddle'])"
    cells = [
        "from instrlib import plots",
        draw,
        f"figure = {draw}",
        "import matplotlib.pyplot",
        draw,
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own event loop
        NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).execute()
        gc.collect()
    outputs = [cell.outputs for cell in notebook.cells]
    kinds = [[found.output_type + found.get("text", "") for found in cell] for cell in outputs]
    assert kinds == [[], ["execute_result"], [], [], ["execute_result"]]
    for found in (outputs[1][0], outputs[4][0]):
        assert set(found.data) == {"image/png", "text/plain"}
        assert len(found.data["image/png"]) > 1000


@pytest.mark.parametrize("n_classes", [3, 12, 41])
def test_labels_do_not_overlap_from_three_to_forty_one_classes(n_classes):
    given = arguments(n_classes)
    for name in ("class_balance", "split_overview", "per_class_scores", "confusion_matrix", "model_comparison"):
        figure = plots.FIGURES[name](**given[name])
        axes = figure.axes[0]
        names, numbers = axes.get_yticklabels(), drawn_x_labels(axes)
        assert not overlapping(names), name
        assert not overlapping(numbers), name
        assert not beyond_the_edge(figure, [*names, *numbers, axes.xaxis.label]), name
    grid = plots.spectrogram_grid(**given["spectrogram_grid"])
    assert not overlapping([axes.title for axes in grid.axes])


@pytest.mark.parametrize("name", list(arguments()))
def test_nothing_is_written_beyond_the_edge_of_a_picture(name):
    longest = {"metric": "insertion minus deletion!!!!", "reference": "the network without any mask"}
    given = arguments()[name] | (longest if name == "paired_differences" else {})
    figure = plots.FIGURES[name](**given)
    assert not beyond_the_edge(figure, words_of(figure))


@pytest.mark.parametrize("n_classes", [1, 2, 3, 41])
def test_names_of_any_kind_are_drawn_without_a_warning(n_classes):
    hard = ["$\\frac$_not_mathematics", "a$b", "ピアノ_🎹", "Trompete (gedämpft)", "x" * 90, "two\nlines", " "]
    classes = np.array([hard[number % len(hard)] for number in range(n_classes)])
    given = arguments(n_classes)
    for name in ("class_balance", "confusion_matrix", "per_class_scores", "split_overview"):
        plots.FIGURES[name](**given[name] | {"classes": classes})
    plots.spectrogram_grid(**given["spectrogram_grid"] | {"titles": classes})
    plots.model_comparison(**given["model_comparison"] | {"names": classes})


def test_underscores_are_shown_as_spaces_and_long_names_are_cut():
    figure = plots.class_balance(classes=np.array(["Violin_or_fiddle", "y" * 60]), n_clips=[1, 2], n_groups=[1, 1])
    shown = texts(figure)
    assert "Violin or fiddle" in shown
    assert "y" * 27 + "…" in shown


def test_the_confusion_matrix_writes_each_count_once_and_colours_by_the_row():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    figure = plots.confusion_matrix(counts=counts, classes=np.array(["a", "b", "c"]))
    axes = figure.axes[0]
    # A cell's centre lies half a step inside.
    written = {
        tuple(int(at) for at in text.get_position()[::-1]): int(text.get_text())
        for text in axes.texts
        if text.get_text()
    }
    assert written == {(0, 0): 8, (0, 1): 2, (2, 0): 1, (2, 2): 3}
    shares = np.reshape(axes.collections[0].get_array(), (3, 3))
    np.testing.assert_allclose(shares, [[0.8, 0.2, 0], [0, 0, 0], [0.25, 0, 0.75]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answered", "true class")


def test_frequency_ticks_stand_on_the_band_of_that_frequency_and_time_is_in_seconds():
    bands_hz = np.linspace(0, 10_000, 101)
    figure = plots.spectrogram_grid(
        spectra=np.zeros((1, 101, 50)), titles=["a"], hop_s=0.1, mel_frequencies_hz=bands_hz
    )
    axes = figure.axes[0]
    for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert place == pytest.approx(float(label.get_text()) * 10)
    assert "10" in [label.get_text() for label in axes.get_yticklabels()]
    assert axes.get_xlim() == pytest.approx((-0.05, 4.95))
    assert {"time (s)", "frequency (kHz)", "level (dB)"} <= set(texts(figure))


def test_mixed_spectrograms_say_the_shares_of_their_label_the_largest_first():
    figure = plots.mixed_spectrograms(**arguments()["mixed_spectrograms"])
    assert "an example\n1.00 cello\n" in texts(figure)
    assert "CutMix\n0.60 clarinet\n+ 0.40 cello" in texts(figure)
    assert {"time (s)", "frequency (kHz)", "level (dB)"} <= set(texts(figure))


def test_spectrograms_share_one_colour_scale():
    figure = plots.spectrogram_grid(**arguments(3)["spectrogram_grid"])
    limits = {axes.images[0].get_clim() for axes in figure.axes[:3]}
    assert len(limits) == 1


def test_an_activation_map_lies_on_its_spectrogram_with_a_line_around_its_upper_half():
    bands, frames = np.mgrid[:32, :40]
    blob = np.exp(-((bands - 20) ** 2 + (frames - 10) ** 2) / 50)
    given = arguments()["activation_overlays"] | {"spectra": np.zeros((1, 32, 40)), "maps": 7 * blob[None]}
    axes = plots.activation_overlays(**given | {"titles": ["a"], "hop_s": 0.1}).axes[0]
    sound, overlay = axes.images
    np.testing.assert_allclose(sound.get_extent(), overlay.get_extent())
    np.testing.assert_allclose(overlay.get_array(), blob / blob.max())
    assert overlay.get_alpha()[20, 10] == np.max(overlay.get_alpha()) and overlay.get_alpha()[0, 39] == 0
    line = axes.collections[0].get_paths()[0].vertices
    radius = np.hypot(line[:, 0] / 0.1 - 10, line[:, 1] - 20)
    np.testing.assert_allclose(radius, np.sqrt(50 * np.log(2)), atol=0.2)


def test_no_segment_to_overlay_and_a_class_without_a_map_are_drawn_without_a_warning():
    given = arguments()["activation_overlays"]
    empty = plots.activation_overlays(**given | {"spectra": np.zeros((0,)), "maps": np.zeros((0,)), "titles": []})
    assert "there is no such segment" in texts(empty)
    plots.activation_overlays(**given | {"maps": np.zeros_like(given["maps"])})
    plots.class_average_maps(**arguments()["class_average_maps"] | {"maps": np.full((12, 32, 40), np.nan)})


def test_what_was_listened_to_stands_at_its_time_in_the_recording_and_may_have_no_map():
    given = arguments()["listened_to"]
    figure = plots.listened_to(**given | {"activation": np.zeros_like(given["picture"])}, width=3.7)
    sound, overlay = figure.axes[0].images
    assert sound.get_extent()[:2] == overlay.get_extent()[:2] == pytest.approx([11.99, 12.79])
    assert overlay.get_alpha().max() == 0 and figure.get_figwidth() == 3.7
    text = plots.svg(figure)
    assert text == plots.svg(plots.listened_to(**given | {"activation": np.zeros_like(given["picture"])}, width=3.7))
    assert text.count("<svg") == 1 and "<text" not in text


def test_feature_settings_show_each_picture_at_its_own_size():
    figure = plots.feature_settings(**arguments()["feature_settings"])
    shapes = [axes.images[0].get_array().shape for axes in figure.axes if axes.get_title()]
    assert shapes == [(32, 40), (16, 40), (13, 20)]
    assert "coefficient" in texts(figure)


def test_learning_curves_mark_the_epoch_whose_weights_were_kept():
    given = arguments()["learning_curves"]
    figure = plots.learning_curves(**given)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[0].get_xdata(), [19, 8])
    np.testing.assert_allclose(dots[0].get_ydata(), [given["validation_loss"][0, 18], given["validation_loss"][1, 7]])


def test_classes_are_sorted_by_f1_and_those_without_clips_stand_last():
    figure = plots.per_class_scores(
        classes=np.array(["a", "b", "c"]),
        f1=np.array([0.5, np.nan, 0.9]),
        low=np.full(3, np.nan),
        high=np.full(3, np.nan),
        support=np.array([4, 0, 7]),
    )
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["c (n = 7)", "a (n = 4)", "b (n = 0)"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.90", "0.50", "–"]


def test_a_timeline_has_a_row_for_what_was_found_or_plays_and_says_when_there_is_nothing():
    given = arguments()["timeline"] | {"active": np.zeros((75, 12), bool)}
    rows = [text.get_text() for text in plots.timeline(**given).axes[0].get_yticklabels()]
    assert rows == ["cello 0", "electric guitar 11"]
    found = given | {"truth_label": (), "truth_start_s": (), "truth_end_s": ()}
    assert "no instrument was found at any time" in texts(plots.timeline(**found))
    found["active"][30:40, 5] = True
    figure = plots.timeline(**found, width=5.0)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["piano 5"]
    assert not figure.legends and figure.get_figwidth() == 5.0
    (image,) = figure.axes[0].images
    assert image.get_array().mask.sum() == 65 and image.get_extent()[:2] == [0, 75]


def test_padded_keeps_values_and_fills_with_nan():
    found = padded([np.ones((2, 3)), np.zeros((3, 1))])
    assert found.shape == (2, 3, 3)
    assert np.isnan(found).sum() == (9 - 6) + (9 - 3)
    np.testing.assert_array_equal(found[1, :, 0], 0)


@pytest.mark.parametrize(
    "stored", [{"figure": "no_such_figure"}, {"figure": "leak", "wrong": 1}, {"counts": [1]}, {"figure": [1, 2]}]
)
def test_arrays_of_another_version_are_refused_in_one_sentence(tmp_path, stored):
    write_arrays(tmp_path / "old.npz", **stored)
    with pytest.raises(InstrlibError, match=r"old\.npz does not hold a figure of this version; run the notebook"):
        plots.draw_stored(tmp_path / "old.npz")


def test_a_missing_file_of_arrays_says_so(tmp_path):
    with pytest.raises(InstrlibError, match="missing"):
        plots.draw_stored(tmp_path / "none.npz")


def test_a_folder_that_cannot_be_made_is_one_clear_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    figure = plots.model_comparison(**arguments()["model_comparison"])
    with pytest.raises(DiskError, match="not a folder"):
        plots.save(figure, Path(tmp_path / "file" / "figures"), "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
