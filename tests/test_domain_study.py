"""Networks answer what they have not learned from, scores are those of the classes in common, and adapting is exact."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from trees import make_folders

from instrlib.core.config import TrainConfig, get_profile
from instrlib.core.errors import EvaluationError
from instrlib.core.io import read_json
from instrlib.data import rendered
from instrlib.data.splits import load_split
from instrlib.data.taxonomy import common_name
from instrlib.findings import domains as findings
from instrlib.models.layers import Layer
from instrlib.models.trained import load_model, load_scaler
from instrlib.studies import domain_study, domains
from instrlib.studies.domain_study import Answered, Embedded
from instrlib.studies.domains import Domain

SEEDS = (0, 1)
SPEC = (Layer("conv", 4, 3, 2, 2, True), Layer("conv", 6, 3, 1, 1, True), Layer("average"))
CONFIG = TrainConfig(epochs=2, patience=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("domains")


@pytest.fixture(scope="module")
def worlds(small, inputs, place):
    """Return the small rendered corpus, another font (in name alone), and a folder with two classes of theirs."""
    load = rendered.load

    def load_font(root, *, clips_per_class, seed, players, workers):
        assert players.fonts == ("Other",)
        few = {"classes": small.clips.classes, "players": rendered.Players(("TimGM6mb",))}
        return load(root, clips_per_class=clips_per_class, seed=seed, **few, workers=workers)

    make_folders(place / "mine", classes=("flute", "piano", "whistling"), recordings=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRLIB_DATA", str(place / "data"))
        patch.setenv(domains.VARIABLE, f"folder={place / 'mine'}")
        patch.setattr(domains.soundfont, "fonts", lambda: {"Other": Path()})
        patch.setattr(domains.rendered, "load", load_font)
        profile = get_profile("smoke")
        found, left_out = domains.at_hand(
            small.clips, inputs, profile=profile, clips_per_class=9, folder=place / "run", workers=1
        )
    assert not left_out
    return found


@pytest.fixture(scope="module")
def outcomes(worlds, place):
    return domain_study.train(place / "run", worlds, SPEC, CONFIG, seeds=SEEDS, workers=1)


@pytest.fixture(scope="module")
def answered(worlds, outcomes, place):
    return domain_study.answer(place / "run", worlds, outcomes, workers=1)


@pytest.fixture(scope="module")
def table(answered):
    return domain_study.matrix(answered, n_resamples=100)


def world(name, classes, manifest=None, corpus="folder"):
    """Return a domain of nothing but names."""
    known = {label: common_name(corpus, label) for label in classes}
    common = {label: found for label, found in known.items() if found}
    clips = SimpleNamespace(name=corpus, manifest=manifest)
    return Domain(name, name, clips, SimpleNamespace(classes=tuple(classes)), (Path("split"),), common, frozenset())


def said(targets, answers, n_classes, groups=None):
    """Return predictions of networks that are sure [n_networks, n_clips]."""
    answers = np.atleast_2d(answers)
    n = len(targets)
    return {
        "clip_id": np.array([f"c{number:03}" for number in range(n)]),
        "group": np.array([f"g{number}" for number in range(n)] if groups is None else groups),
        "targets": np.asarray(targets),
        "probabilities": np.where(np.eye(n_classes)[answers] == 1, 0.9, 0.1 / (n_classes - 1)),
    }


def one_pair(source, target, predictions, adapted=None):
    common = domains.in_common(source, target)
    return Answered(source, target, common, (), predictions, predictions if adapted is None else adapted)


# -- training and answers ----------------------------------------------------------------------------------------------


def test_every_domain_is_answered_by_the_networks_of_every_domain(answered, worlds):
    names = [domain.name for domain in worlds]
    assert [(one.source.name, one.target.name) for one in answered] == [
        (source, target) for source in names for target in sorted(names, key=lambda name, own=source: name != own)
    ]
    assert {len(one.predictions["probabilities"]) for one in answered} == {len(SEEDS)}


def test_a_network_answers_its_own_test_part_and_all_clips_of_the_others(answered):
    for one in answered:
        clips = one.target.store.clips
        if one.source.name == one.target.name:
            parts = load_split(one.source.splits[0], one.source.store.segments).parts
            clips = clips[clips.clip_id.map(parts) == "test"]
        assert one.predictions["clip_id"].tolist() == sorted(clips.clip_id)


def test_no_clip_and_no_group_that_a_network_is_tested_on_was_learned_or_chosen_by(answered):
    for one in answered:
        parts = load_split(one.source.splits[0], one.source.store.segments).parts
        own = one.source.store.clips
        learned = own[own.clip_id.map(parts) != "test"]
        assert not set(one.predictions["clip_id"]) & set(learned.clip_id)
        if one.source.name == one.target.name:
            assert not set(one.predictions["group"]) & set(learned.group)


def test_the_answers_are_those_of_the_network_with_its_own_scaling(answered):
    one = next(one for one in answered if one.source.name != one.target.name)
    clip = one.predictions["clip_id"][3]
    store = one.target.store
    model, scaler = load_model(one.runs[1])
    expected = model.predict_on_batch(store.read(store.segments.row[store.segments.clip_id == clip], scaler)).mean(
        axis=0
    )
    np.testing.assert_allclose(one.predictions["probabilities"][1, 3], expected, atol=1e-5)


def test_asked_again_nothing_is_computed_again(answered, worlds, outcomes, place):
    kept = {path: path.stat().st_mtime_ns for path in (place / "run" / "answers").rglob("*.npz")}
    assert len(kept) == len(worlds) * (len(worlds) - 1) * len(SEEDS) * 2
    again = domain_study.answer(place / "run", worlds, outcomes, workers=1)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for one, other in zip(answered, again, strict=True):
        np.testing.assert_array_equal(one.predictions["probabilities"], other.predictions["probabilities"])


# -- adapting ----------------------------------------------------------------------------------------------------------


def windows(x, size, stride):
    """Return all windows of a picture [n, rows, columns, channels] with padding "same", as TensorFlow places them."""
    pads = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[1:3]]
    x = np.pad(x, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def numpy_statistics(model, x):
    """Return mean and variance before each normalisation of a network of `SPEC`, computed without Keras."""
    found = []
    for number, (stride, pool) in enumerate(((2, 2), (1, 1)), 1):
        kernel = model.get_layer(f"conv{number}").get_weights()[0].astype(float)
        gamma, beta = (value.astype(float) for value in model.get_layer(f"norm{number}").get_weights()[:2])
        x = np.einsum("nrcaij,ijab->nrcb", windows(x, 3, stride), kernel)
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        found.append((mean, variance))
        x = np.maximum(gamma * (x - mean) / np.sqrt(variance + model.get_layer(f"norm{number}").epsilon) + beta, 0)
        rows, columns = (side // pool for side in x.shape[1:3])
        x = x[:, : rows * pool, : columns * pool].reshape(len(x), rows, pool, columns, pool, -1).max(axis=(2, 4))
    return found


def test_adapted_statistics_are_those_of_an_independent_computation(answered):
    one = next(one for one in answered if one.source.name == "rendered" and one.target.name == "folder mine")
    store, run = one.target.store, one.runs[0]
    rows = store.segments.row.to_numpy()
    adapted = domain_study.adapt_batch_norm(run, store, rows)
    first = load_model(run)[0]
    for number, expected in enumerate(numpy_statistics(first, store.read(rows, load_scaler(run)).astype(float)), 1):
        gamma, beta, *statistics = adapted.get_layer(f"norm{number}").get_weights()
        for value, wanted in zip(statistics, expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-4)
        for value, wanted in zip((gamma, beta), first.get_layer(f"norm{number}").get_weights(), strict=False):
            np.testing.assert_array_equal(value, wanted)
        before = first.get_layer(f"norm{number}").get_weights()[2]
        assert not np.allclose(statistics[0], before, rtol=1e-2)


def test_adapting_in_blocks_is_adapting_at_once_and_of_many_segments_some_are_measured(answered, monkeypatch):
    one = answered[1]
    rows = one.target.store.segments.row.to_numpy()

    def adapted(of):
        return domain_study.adapt_batch_norm(one.runs[0], one.target.store, of).get_weights()

    whole, half = adapted(rows), adapted(rows[::2])
    monkeypatch.setattr(domain_study, "_BATCH", 5)
    for value, wanted in zip(adapted(rows), whole, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(domain_study, "_MEASURED", len(rows[::2]))
    for value, wanted in zip(adapted(rows[: 2 * len(rows[::2]) - 1]), half, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def test_the_adapted_answers_are_kept_apart_and_no_label_of_the_target_is_used(answered):
    one = next(one for one in answered if one.adapted is not None)
    store = one.target.store
    model = domain_study.adapt_batch_norm(one.runs[0], store, store.segments.row.to_numpy())
    of_clip = store.segments.row[store.segments.clip_id == one.adapted["clip_id"][0]]
    expected = model.predict_on_batch(store.read(of_clip, load_scaler(one.runs[0]))).mean(axis=0)
    np.testing.assert_allclose(one.adapted["probabilities"][0, 0], expected, atol=1e-5)
    assert not np.allclose(one.adapted["probabilities"], one.predictions["probabilities"])


def test_adapting_to_nothing_is_refused(answered):
    with pytest.raises(EvaluationError, match="no clips at all"):
        domain_study.adapt_batch_norm(answered[0].runs[0], answered[0].source.store, np.array([], int))


# -- scores ------------------------------------------------------------------------------------------------------------

FINE = world("fine", ("acoustic guitar", "cello", "electric guitar", "noise"))
COARSE = world("coarse", ("cello", "guitar", "gong"))


def test_an_answer_is_right_when_it_has_the_common_name():
    fine = world("fine", ("acoustic_guitar", "cello", "electric_guitar", "organ"), corpus="rendered")
    coarse = world("coarse", ("drums", "guitar", "organ"), corpus="kaggle_instruments")
    predictions = said([1, 1, 2, 2, 0], [0, 2, 1, 3, 0], 4)
    told = domain_study.in_common_classes(predictions, domains.in_common(fine, coarse))
    assert told["clip_id"].tolist() == ["c000", "c001"]  # kaggle_instruments knows no organ; drums are not known there
    assert (told["probabilities"].argmax(axis=-1) == told["targets"]).all()
    np.testing.assert_allclose(told["probabilities"].sum(axis=-1), 1)


def test_balanced_accuracy_and_its_baselines_are_those_computed_by_hand(monkeypatch):
    monkeypatch.setattr(domain_study, "_commonest", lambda domain: 0)
    source, target = world("a", ("cello", "flute", "piano", "whistling")), world("b", ("flute", "piano", "cello"))
    # 4 flutes of which 3 are right, one taken for whistling; 2 pianos, 1 right; 2 cellos, none right.
    own = one_pair(source, source, said([0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, 3, 0], 4))
    there = one_pair(source, target, said([0, 0, 0, 0, 1, 1, 2, 2], [1, 1, 1, 3, 2, 0, 1, 2], 4))
    table = domain_study.matrix([own, there], n_resamples=200)
    row = table.iloc[1]
    assert row.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert row.accuracy == pytest.approx(4 / 8)
    assert row.constant == pytest.approx(1 / 3) and row.chance == 1 / 4
    assert row.majority == pytest.approx(2 / 8)  # cello is the commonest class that was trained on
    assert row.own == pytest.approx(1) and row["drop"] == pytest.approx(1 - row.balanced_accuracy)
    assert table.balanced_accuracy[0] == pytest.approx(7 / 8) and np.isnan(table["drop"][0])
    assert row.n_common == 3 and row.n_clips == 8 and row.balanced_accuracy_low < row.balanced_accuracy
    # Without "whistling" the fourth flute may be anything else, and here goes to the first of the rest.
    assert row.among_common >= row.balanced_accuracy


def test_a_fall_is_shown_where_there_is_one_and_not_where_there_is_none(monkeypatch):
    monkeypatch.setattr(domain_study, "_commonest", lambda domain: 0)
    source, near, far = (world(name, ("cello", "flute")) for name in "abc")
    targets = np.tile([0, 1], 20)
    mostly = np.where(np.arange(40) % 8 < 6, targets, 1 - targets)
    own, same, worse = (
        one_pair(source, target, said(targets, [answers] * 2, 2))
        for target, answers in ((source, mostly), (near, mostly), (far, 1 - targets))
    )
    table = domain_study.matrix([own, same, worse], n_resamples=300).set_index("tested_on")
    assert table["drop"]["b"] == 0 and table.p_holm["b"] > 0.5
    assert table["drop"]["c"] == pytest.approx(0.75) and table.p_holm["c"] < 0.05
    sentence = findings.fall_sentence(table.reset_index())
    assert "falls in 1 of 2 pairs" in sentence and "in 1 no difference is shown" in sentence
    assert "from a to c: from 0.75" in sentence


def test_adaptation_is_paired_and_told_with_its_doubt():
    source, near, far = (world(name, ("cello", "flute")) for name in "abc")
    targets = np.tile([0, 1], 20)
    half = np.where(np.arange(40) < 20, targets, 1 - targets)
    helped = one_pair(source, near, said(targets, half, 2), said(targets, targets, 2))
    same = one_pair(source, far, said(targets, half, 2), said(targets, half, 2))
    table = domain_study.adaptation([helped, same], n_resamples=300)
    assert table.difference.tolist() == pytest.approx([0.5, 0])
    assert table.as_trained.tolist() == pytest.approx([0.5, 0.5]) and table.adapted[0] == pytest.approx(1)
    sentence = findings.adaptation_sentence(table)
    assert "helps from a to b" in sentence and "is not shown to change anything in 1 of the pairs" in sentence
    alone = findings.adaptation_sentence(domain_study.adaptation([same], n_resamples=300))
    assert "is not shown to change anything in any of the pairs" in alone and "helps" not in alone


def test_the_matrix_of_trained_networks_has_a_row_a_pair_and_fits_its_figure(table, worlds):
    assert len(table) == len(worlds) ** 2 and table.p_holm.notna().sum() == len(worlds) * (len(worlds) - 1)
    own = table[table.trained_on == table.tested_on]
    assert own["drop"].isna().all()
    of_folder = table[(table.trained_on == "folder mine") != (table.tested_on == "folder mine")]
    assert set(of_folder.n_common) == {2}
    arrays = domain_study.matrix_arrays(table)
    assert arrays["scores"].shape == arrays["n_common"].shape == (3, 3)
    assert (
        arrays["scores"][0, 2]
        == table.set_index(["trained_on", "tested_on"]).balanced_accuracy["rendered", "folder mine"]
    )
    assert "folder mine" in findings.best_source_sentence(table, "folder mine")


# -- embeddings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(worlds, outcomes, small, place):
    network = outcomes["rendered"].folders[0][0]
    root = small.store.folder.parent
    return domain_study.embeddings(place / "run", worlds, network, source="rendered", per_class=3, root=root, workers=1)


def test_only_classes_of_two_domains_are_embedded_and_of_the_source_only_its_test_part(embedded, small):
    clips = embedded.clips
    assert set(clips.name) == {"drums", "flute", "piano"} and "whistling" not in set(clips.name)
    assert clips.groupby(["domain", "name"]).size().max() == 3
    own = clips.clip_id[clips.domain == "rendered"]
    assert set(own.map(small.split.parts)) == {"test"}
    assert embedded.vectors.shape == (len(clips), 6) and clips[["x", "y"]].notna().all(axis=None)


def test_the_same_map_is_drawn_from_the_same_seed(embedded, worlds, outcomes, small, tmp_path):
    network = outcomes["rendered"].folders[0][0]
    root = small.store.folder.parent
    again = domain_study.embeddings(tmp_path, worlds, network, source="rendered", per_class=3, root=root, workers=1)
    pd.testing.assert_frame_equal(again.clips, embedded.clips)


def test_a_domain_that_shares_a_font_with_the_networks_own_is_not_on_the_map(worlds, outcomes, small, tmp_path):
    same_font = replace(worlds[1], fonts=worlds[0].fonts)
    found = domain_study.embeddings(
        tmp_path, [worlds[0], same_font], outcomes["rendered"].folders[0][0], source="rendered", per_class=3,
        root=small.store.folder.parent, workers=1,
    )  # fmt: skip
    assert set(found.clips.domain) == {"rendered"}


def cloud(shift, *, n=40, spread=0.1):
    """Return two classes of two domains, far from each other by class, and `shift` apart by domain."""
    rng = np.random.default_rng(0)
    name, domain = np.tile(["cello", "flute"], n), np.repeat(["a", "b"], n)
    vectors = rng.normal(0, spread, (2 * n, 8))
    vectors[:, 0] += np.where(name == "cello", 3, -3)
    vectors[:, 1] += np.where(domain == "a", shift, -shift)
    group = [f"{one}: {number}" for number, one in enumerate(domain)]
    clips = pd.DataFrame({"clip_id": group, "domain": domain, "name": name, "group": group, "x": 0.0, "y": 0.0})
    return Embedded(clips, vectors.astype(np.float32), 30.0)


def test_domains_that_lie_apart_are_told_and_those_that_do_not_are_not():
    apart = domain_study.told_by_embedding(cloud(2.0), n_resamples=200)
    assert apart.estimate["domain"] == 1 and apart.trivial["domain"] == 0.5
    assert "can be told" in findings.embedding_sentence(apart)
    together = domain_study.told_by_embedding(cloud(0.0), n_resamples=200)
    assert together["low"]["domain"] < 0.5 < together["high"]["domain"]
    assert "is not shown to be told" in findings.embedding_sentence(together)


def test_the_nearest_clip_of_another_domain_tells_the_class_where_classes_agree():
    told = domain_study.told_by_embedding(cloud(1.0), n_resamples=200)
    assert told.estimate["class, from another domain"] == told.estimate["class, from the same domain"] == 1
    swapped = cloud(0.0)
    other = swapped.clips.assign(
        name=np.where(
            swapped.clips.domain == "b",
            swapped.clips.name.map({"cello": "flute", "flute": "cello"}),
            swapped.clips.name,
        )
    )
    told = domain_study.told_by_embedding(Embedded(other, swapped.vectors, 30.0), n_resamples=200)
    assert told.estimate["class, from another domain"] == 0 and told.estimate["class, from the same domain"] == 1


def test_a_neighbour_of_the_same_group_does_not_count():
    clips = cloud(1.0).clips
    one_group = clips.assign(group=clips.domain)
    told = domain_study.told_by_embedding(Embedded(one_group, cloud(1.0).vectors, 30.0), n_resamples=50)
    assert told.n_clips["class, from the same domain"] == 0 and np.isnan(told.estimate["class, from the same domain"])


def test_where_domains_have_less_than_two_classes_in_common_nothing_is_told():
    clips = cloud(1.0).clips
    alone = clips[(clips.domain == "a") | (clips.name == "cello")]
    told = domain_study.told_by_embedding(Embedded(alone, cloud(1.0).vectors[alone.index], 30.0), n_resamples=50)
    assert told.estimate.isna().all() and not told.n_clips.any()
    assert "tell nothing" in findings.embedding_sentence(told)


# -- confusions --------------------------------------------------------------------------------------------------------


def manifest(programs):
    n = len(programs)
    return pd.DataFrame({"clip_id": [f"c{number:03}" for number in range(n)], "program": programs, "path": "x.wav"})


def test_confusions_are_counted_over_networks_and_sorted_by_share():
    source = world("a", ("electric guitar", "piano", "trumpet"))
    target = world("b", ("electric guitar", "gong", "piano"), manifest([30, 30, 26, 0, 0, 0]))
    pair = one_pair(source, target, said([0, 0, 0, 1, 2, 2], [[2, 2, 0, 1, 1, 1], [2, 0, 0, 2, 1, 0]], 3))
    found = domain_study.confusions(pair)
    assert found.share.is_monotonic_decreasing
    rows = found.set_index(["label", "answered"])
    assert rows["count"]["electric guitar", "trumpet"] == 3 and rows.share["electric guitar", "trumpet"] == 3 / 6
    assert rows.n_clips["electric guitar", "trumpet"] == 3
    assert rows.share["piano", "electric guitar"] == 1 / 4
    assert not rows.known["gong", "piano"] and rows.known["piano", "electric guitar"]
    by_program = domain_study.confusions(pair, column="program").set_index(["label", "program", "answered"])
    assert by_program.share["electric guitar", 30, "trumpet"] == 3 / 4
    assert ("electric guitar", 26, "trumpet") not in by_program.index
    apart = findings.taken_for_sentence(by_program.reset_index(), "a", "b")
    assert "electric guitar of program 30 for trumpet (75% of the answers to 2 clips)" in apart
    sentence = findings.taken_for_sentence(found, "a", "b")
    assert "electric guitar for trumpet (50% of the answers to 3 clips)" in sentence and "gong" not in sentence


def test_the_pair_to_look_at_is_of_the_study_where_it_can_be(answered):
    assert domain_study.example_pair(answered, source="rendered").target.name == "folder mine"
    assert domain_study.example_pair(answered, source="rendered", rendered=True).target.label == "Other"
    own = [one for one in answered if one.adapted is None]
    assert domain_study.example_pair(own, source="rendered") is own[0]
    others = [one for one in answered if one.source.name != "rendered" or one.adapted is None]
    assert domain_study.example_pair(others, source="rendered") is answered[-1]


def test_networks_that_are_always_right_confuse_nothing():
    source, target = world("a", ("cello", "flute")), world("b", ("cello", "flute"))
    found = domain_study.confusions(one_pair(source, target, said([0, 1], [0, 1], 2)))
    assert found.empty and {"share", "n_clips", "known"} <= set(found)
    assert "took no clip" in findings.taken_for_sentence(found, "a", "b")


def test_examples_are_the_surest_wrong_answers_of_the_first_network_from_different_groups():
    source = world("a", ("cello", "flute", "piano"))
    target = world("b", ("cello", "flute", "piano"), manifest([0] * 5))
    predictions = said([0, 0, 0, 1, 1], [1, 1, 2, 1, 0], 3, groups=["u", "u", "v", "w", "x"])
    sure = np.array([0.8, 0.95, 0.7, 0.99, 0.6])
    predictions["probabilities"] = np.where(
        predictions["probabilities"] > 0.5, sure[None, :, None], (1 - sure)[None, :, None] / 2
    )
    pair = one_pair(source, target, predictions)
    found = domain_study.examples(pair, n=3)
    assert found.clip_id.tolist() == ["c001", "c002", "c004"]  # c000 is of the group of c001; c003 is right
    assert found.answered.tolist() == ["flute", "piano", "cello"] and "path" in found
    assert domain_study.examples(pair, n=3, label="cello", taken_for="piano").clip_id.tolist() == ["c002"]


def test_maps_of_wrong_answers_fit_their_figure(answered, small):
    pair = next(one for one in answered if one.source.name == "folder mine" and one.target.name == "rendered")
    shown = domain_study.examples(pair, n=2)
    assert len(shown) == 2
    arrays = domain_study.wrong_maps(pair, shown)
    assert arrays["maps"].shape == arrays["spectra"].shape == (2, *small.store.config.shape)
    assert arrays["titles"][0].startswith(f"{shown.label[0]}: {shown.answered[0]} ")


# -- on real clips -----------------------------------------------------------------------------------------------------


def test_the_real_sample_is_a_domain_with_instruments_in_common(sample_root, small, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv(domains.VARIABLE, f"fsdkaggle2018={sample_root}")
    monkeypatch.setattr(domains.soundfont, "fonts", dict)
    profile = get_profile("smoke")
    (_, real), left_out = domains.at_hand(small.clips, inputs, profile=profile, clips_per_class=4, folder=tmp_path)
    assert not left_out and len(real.splits) == 1
    whole = world("rendered", rendered.CLASSES, corpus="rendered")
    assert {"cello", "clarinet", "flute", "saxophone"} <= set(domains.in_common(whole, real).names)
    assert read_json(real.splits[0])["seed"] == 0
