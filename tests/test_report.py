"""The report: a study's argument as a page and as a PDF, every number traced, and nothing from any other host."""

import base64
import io
import json
import math
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from instrlib.core.config import get_profile
from instrlib.core.errors import InstrlibError, RunError
from instrlib.report import bibliography, keys, methods, metric_tables, released, worlds, write_pdf, write_report
from instrlib.report.argument import argument
from instrlib.report.asides import task_sentence
from instrlib.report.typography import NO_BREAK, typeset

STUDY = "fsdkaggle2018-quick"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect width="30" height="20" fill="#0072B2"/></svg>'
)
MANIFEST = {
    "notebook": "01_preprocessing",
    "study": STUDY,
    "parameters": {"corpus": "fsdkaggle2018", "data": "sample", "profile": "quick", "seeds": 3},
    "inputs": {"corpus": "0123abcd"},
    "uses": [],
    "versions": {"python": "3.11.7", "numpy": "2.4.0"},
    "commit": "abcdef012345+",
}
SCORE = {"estimate": 0.875, "low": 0.8, "high": 0.925}
METRICS = {
    "findings": ["The `folder` holds <b>not markup</b>, #panic() and $x$ [0.1, 0.2]."],
    "n_clips": 1234,
    "parts": {"train": 1000, "validation": 100, "test": 134},
    "models": {"compact": {"accuracy": SCORE}},
    "text": "<b>not markup</b>",
}
BASELINE = {
    "findings": ["It is better."],
    "n_tested": 134,
    "scores": {
        "compact CNN": {"accuracy": SCORE, "macro_f1": SCORE},
        "majority class": {"accuracy": {"estimate": 0.1, "low": 0.05, "high": 0.15}, "macro_f1": SCORE},
    },
    "comparison": {"against": "majority class", "difference": SCORE | {"p": 0.002}},
}


class Page(HTMLParser):
    """Collects a page's tags, attributes and text, and checks that tags are closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def attributes(self, tag: str, name: str) -> list[str]:
        """Return an attribute of all tags of a kind."""
        return [given[name] for found, given in self.found if found == tag and name in given]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Lay out a study of two notebooks with two figures, none of it stale, and return its folder of numbers."""
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    notebooks = {
        "01_preprocessing": {"metrics": METRICS, "manifest": MANIFEST},
        "02_baseline_cnn": {
            "metrics": BASELINE,
            "manifest": MANIFEST
            | {"uses": ["01_preprocessing"], "versions": {"numpy": "2.3"}, "commit": "feed00000000"},
        },
    }
    folder = tmp_path / "reports" / STUDY
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"study": STUDY, "notebooks": notebooks}))
    figures = tmp_path / "figures" / STUDY
    figures.mkdir(parents=True)
    for number, stem in enumerate(("01_class_balance", "02_model_comparison")):
        Image.fromarray(np.full((20, 30, 3), 90 * number, np.uint8)).save(figures / f"{stem}.png")
        (figures / f"{stem}.svg").write_text(SVG)
    words = "# 01 · What we hear\n\n**What is in the corpus?** `reads` nothing"
    cell = {"cell_type": "markdown", "source": words, "metadata": {}}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_preprocessing.ipynb").write_text(json.dumps({"cells": [cell]}))
    return folder


@pytest.fixture
def page(study):
    """Return the page of that study."""
    assert write_report(STUDY) == study / "report.html"
    return Page((study / "report.html").read_text())


def blocks(document):
    """List all that stands in the sections of an argument."""
    sections = [part for section in document["sections"] for part in (section, *section["sections"])]
    return [block for section in sections for block in section["blocks"]]


def words(pieces):
    """Join pieces to the text that they are read as."""
    return "".join(piece["text"] for piece in pieces)


def test_it_tells_the_argument_in_order(study):
    document = argument(STUDY)
    assert [section["title"] for section in document["sections"]] == [
        "What was asked",
        "The data",
        "Methods",
        "Results",
        "What was found",
        "Limits",
        "How to reproduce it",
    ]
    results = document["sections"][3]["sections"]
    assert [(part["number"], part["title"]) for part in results] == [
        ("4.1", "Side by side"),
        ("4.2", "What we hear"),
        ("4.3", "Baseline cnn"),
    ], "a notebook that is gone goes by its name"


def test_it_shows_questions_findings_data_with_licences_and_the_way_to_do_it_again(page):
    assert "What is in the corpus? reads nothing" in page.text
    assert "The folder holds <b>not markup</b>, #panic() and $x$ [0.1, 0.2]." in page.text
    assert "FSDKaggle2018" in page.text and "Creative Commons" in page.text and "1,234" in page.text
    assert "This study has 1,234 of the 11,073 clips of FSDKaggle2018" in page.text
    assert "A group is uploads of one class" in page.text
    assert "Of the 1 main comparisons of this study, one a notebook, 1 shows a difference" in page.text
    assert "make study CORPUS=fsdkaggle2018 DATA=path/to/sample PROFILE=quick SEEDS=3" in page.text
    assert "numpy 2.4.0 and 2.3" in page.text and "python 3.11.7 and none" in page.text
    epochs = get_profile("quick").train.epochs
    assert f"from 3 seeds for at most {epochs} epochs" in page.text, "methods are filled from the profile"


def test_the_clips_of_a_part_of_a_release_are_named_and_so_is_the_study_that_the_notebooks_show(study, tmp_path):
    assert "clips.csv" not in " ".join(words(block["pieces"]) for block in blocks(argument(STUDY)) if "pieces" in block)
    (study / "clips.csv").write_text("clip_id,label,group\n")
    path = tmp_path / "notebooks/01_preprocessing.ipynb"
    raw = json.loads(path.read_text())
    declared = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "outputs": []}
    source = 'corpus = "rendered"\nprofile = "quick"'
    path.write_text(json.dumps(raw | {"cells": [*raw["cells"], declared | {"source": source}]}))
    told = " ".join(words(block["pieces"]) for block in blocks(argument(STUDY)) if "pieces" in block)
    assert "The study has 1,234 of the 11,073 clips of FSDKaggle2018. They are listed in clips.csv" in told
    assert "The notebooks that are linked here show the numbers of another study, rendered-quick." in told
    source = source.replace("rendered", "fsdkaggle2018")
    path.write_text(json.dumps(raw | {"cells": [*raw["cells"], declared | {"source": source}]}))
    told = " ".join(words(block["pieces"]) for block in blocks(argument(STUDY)) if "pieces" in block)
    assert "The notebooks that are linked here" not in told


def test_every_table_and_figure_names_and_links_the_notebook_the_run_and_the_commit(study):
    traced = [block for block in blocks(argument(STUDY)) if block["kind"] in ("figure", "table")]
    assert {block["kind"] for block in traced} == {"figure", "table"}
    for block in traced:
        source, links = words(block["source"]), [piece["url"] for piece in block["source"] if "url" in piece]
        assert f"runs/{STUDY}/" in source and ("abcdef012345+" in source or "feed00000000" in source)
        assert any(link.startswith("../../notebooks/0") for link in links) and "results.json" in links
        if block["kind"] == "figure":
            assert f"arrays/{block['stem']}.npz" in links
    for kind in ("figure", "table"):
        numbers = [block["number"] for block in traced if block["kind"] == kind]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_section_of_results_has_a_key_table_with_its_interval_and_test(study):
    baseline = argument(STUDY)["sections"][3]["sections"][2]
    (table,) = [block for block in baseline["blocks"] if block["kind"] == "table"]
    assert table["header"] == ("Model", "Accuracy", "Macro F1", "Difference from majority class", "p")
    assert table["rows"][0] == ("compact CNN", *["0.875 [0.800, 0.925]"] * 2, "+0.875 [+0.800, +0.925]", ".002")


def test_nothing_is_lost_all_other_figures_and_numbers_stand_in_the_appendix(page):
    assert "n clips 1,234" in page.text and "compact 0.875 [0.800, 0.925]" in page.text
    assert "text <b>not markup</b>" in page.text[page.text.index("Appendix: all figures and numbers What each") :]
    assert len(page.attributes("img", "src")) == 2
    alts = [keys.FIGURES["02"]["model_comparison"], "Clips and groups of each class."]
    assert page.attributes("img", "alt") == alts


def test_it_asks_no_other_host_for_anything_and_fits_a_phone(page):
    assert not {"script", "iframe", "object"} & {tag for tag, _ in page.found}
    assert all(source.startswith("data:") for source in page.attributes("img", "src"))
    assert page.attributes("link", "href") == ["data:,"]
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.found


def test_every_link_within_the_page_leads_somewhere(page):
    names = [given["id"] for _, given in page.found if "id" in given]
    assert len(names) == len(set(names))
    inside = {link[1:] for link in page.attributes("a", "href") if link.startswith("#")}
    assert inside and inside <= set(names)


def test_figures_are_embedded_without_loss(page, tmp_path):
    first = page.attributes("img", "src")[0]
    embedded = Image.open(io.BytesIO(base64.b64decode(first.removeprefix("data:image/webp;base64,"))))
    with Image.open(tmp_path / "figures" / STUDY / "02_model_comparison.png") as stored:
        np.testing.assert_array_equal(np.asarray(embedded.convert("RGB")), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("write", [write_report, write_pdf])
def test_a_study_without_results_is_named_with_the_way_out(write):
    with pytest.raises(RunError, match=r"none-quick/results\.json is missing; run `instrlib study`"):
        write("none-quick")


def test_cards_are_linked_where_there_are_any(study):
    before = argument(STUDY)
    (study / "model").mkdir()
    for path in (study / "DATA_CARD.md", study / "model" / "MODEL_CARD.md"):
        path.write_text("# Card")
    linked = [piece.get("url") for block in blocks(argument(STUDY)) for piece in block.get("pieces", ())]
    assert {"DATA_CARD.md", "model/MODEL_CARD.md"} <= set(linked)
    assert "card" not in json.dumps(before)


def test_a_study_of_several_labels_a_clip_is_told_by_its_own_scores(study):
    found = dict.fromkeys(("mean_average_precision", "micro_f1", "macro_f1"), SCORE)
    metrics = {
        "findings": ["It hears some."],
        "scores": {"compact CNN": found, "all present": found},
        "comparison": {"against": "all present", "difference": SCORE | {"p": 0.5}}
        | {"mean_average_precision": SCORE | {"p": 0.02}},
    }
    manifest = MANIFEST | {"parameters": {"corpus": "openmic2018", "data": "", "profile": "smoke", "seeds": 1}}
    notebooks = {"02_baseline_cnn": {"metrics": metrics, "manifest": manifest}}
    (study / "results.json").write_text(json.dumps({"study": STUDY, "notebooks": notebooks}))
    tables = [block for block in blocks(argument(STUDY)) if block["kind"] == "table"]
    headers = [table["header"] for table in tables]
    assert ("Model", "Mean average precision", "Micro F1", "Difference from all present", "p") in headers
    assert "OpenMIC" in Page(write_report(STUDY).read_text()).text
    assert write_pdf(STUDY).is_file()


def test_a_missing_figure_is_named_with_the_way_out(study, tmp_path):
    (tmp_path / "figures" / STUDY / "02_model_comparison.svg").unlink()
    with pytest.raises(RunError, match=r"02_model_comparison\.svg is missing; run `instrlib figures`"):
        write_pdf(STUDY)
    assert not (study / "report.pdf").exists()


def test_works_are_numbered_as_they_are_cited_and_listed_in_that_order(study):
    document = argument(STUDY)
    cited = [piece["cite"] for block in blocks(document) for piece in block.get("pieces", ()) if "cite" in piece]
    assert [work["key"] for work in document["works"]] == list(dict.fromkeys(cited))
    assert [work["number"] for work in document["works"]] == list(range(1, len(document["works"]) + 1))


def test_every_work_that_any_study_may_cite_stands_in_the_file_of_references_and_none_is_idle():
    cited = bibliography.Citations()
    entry = {"metrics": {}, "manifest": {}}
    for profile in ("smoke", "quick", "full"):
        notebooks = {f"{number:02d}_x": entry for number in range(1, 14)}
        for paragraph in methods.paragraphs(notebooks, get_profile(profile), 3, several=False):
            cited.pieces(paragraph)
    for works in methods.CORPUS_WORKS.values():
        cited.pieces(works)
    cited.pieces("PCEN [@wang2017] is a variant of the features")
    assert set(cited.numbers) == set(bibliography._formatted())
    with pytest.raises(InstrlibError, match=r"'nobody1900' is cited, but templates/references\.bib does not hold it"):
        cited.pieces("As told [@nobody1900].")


def test_how_an_epoch_is_chosen_depends_on_whether_a_clip_has_several_labels():
    quick = get_profile("quick")
    one, many = (" ".join(methods.paragraphs({}, quick, 3, several=several)) for several in (False, True))
    assert "names most validation segments rightly" in one and "weighs classes" in one
    assert "keeps the epoch with the least validation loss" in many and "weighs classes" not in many


def test_a_work_is_set_with_its_authors_title_and_a_link():
    cited = bibliography.Citations()
    cited.pieces("CutMix [@yun2019]")
    (work,) = cited.works()
    assert words(work["pieces"]).startswith("Sangdoo Yun, Dongyoon Han,") and "CutMix: reg" in words(work["pieces"])
    assert {"text": "arXiv:1905.04899", "url": "https://arxiv.org/abs/1905.04899"} in work["pieces"]


def test_texts_are_cut_at_their_marks_alone():
    pieces = bibliography.Citations().pieces("**Bold** `code` [0.1, 0.2] [@holm1979; @yun2019] end_of *it*")
    assert pieces == [
        {"text": "Bold", "strong": "yes"},
        {"text": " "},
        {"text": "code", "code": "yes"},
        {"text": " [0.1, 0.2] "},
        {"text": "[1]", "cite": "holm1979"},
        {"text": "[2]", "cite": "yun2019"},
        {"text": " end_of *it*"},
    ]


def test_the_pdf_is_the_same_to_the_byte_and_reads_no_text_as_markup(study):
    first = write_pdf(STUDY).read_bytes()
    assert first.startswith(b"%PDF-") and b"/CreationDate" not in first
    assert write_pdf(STUDY).read_bytes() == first


def test_a_notebook_that_is_not_known_shows_its_first_figures_and_numbers():
    assert keys.key_figures("77", ["a_b", "c", "d"]) == {"a_b": "A b.", "c": "C."}
    assert keys.key_table("77", {"findings": ["x"], "n": 3}).rows == (("n", "3"),)
    assert keys.key_table("03", {"findings": ["x"], "n": 3}).rows == (("n", "3"),), "laid out otherwise"
    assert keys.key_table("77", {"findings": ["x"]}) is None


def test_both_forms_of_the_committed_study_are_written_without_tensorflow_and_stay_small(
    repository, tmp_path, monkeypatch
):
    folder = tmp_path / "reports" / "rendered-quick"
    folder.mkdir(parents=True)
    shutil.copy(repository / "reports/rendered-quick/results.json", folder)
    shutil.copytree(repository / "figures/rendered-quick", tmp_path / "figures/rendered-quick")
    code = (
        "import sys\nfrom instrlib.report import write_pdf, write_report\n"
        "write_report('rendered-quick'); write_pdf('rendered-quick')\n"
        "print([name for name in ('tensorflow', 'keras', 'librosa', 'sklearn') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository)
    assert ran.stdout == "[]\n" and ran.stderr == ""
    page = (folder / "report.html").read_text()
    assert len(page) + (folder / "report.pdf").stat().st_size < 3_500_000
    shown = {block["stem"] for block in blocks(argument("rendered-quick")) if block["kind"] == "figure"}
    told = json.loads((folder / "results.json").read_text())["notebooks"]
    wanted = {f"{name[:2]}_{stem}" for name in told for stem in keys.FIGURES.get(name[:2], ())}
    assert wanted <= shown, "every key figure is there"
    text = Page(page).text
    for name, entry in told.items():
        for sentence in entry["metrics"]["findings"] if name[:2] != keys.OVERVIEW else ():
            assert " ".join(typeset(sentence).replace("`", "").split())[:60] in text


PUBLISHED = {
    "notebook": "11_timeline",
    "network": "compact CNN, more clips",
    "n_tested": 1036,
    "n_groups": 26,
    "scores": {"accuracy": {"estimate": 0.673, "low": 0.545, "high": 0.792}},
    "candidates": [{"networks": 2}],
}


def test_a_model_that_no_comparison_holds_is_named_with_its_score_and_how_it_was_made():
    asked = {"domain": "held-out clips", "score": "accuracy", "estimate": 0.682, "low": 0.559, "high": 0.799, "n": 132}
    told = {
        "02_baseline_cnn": {"metrics": {"n_tested": 132}},
        "11_timeline": {"metrics": {"published": PUBLISHED}},
        "13_domain_shift": {"metrics": {"in_domains": [asked]}},
    }
    quick = get_profile("quick")
    same, more = released.found_sentences(told, quick)
    assert "400 clips of each class instead of 50, it has an accuracy of 0.682 [0.559, 0.799] on the same 132" in same
    assert "1,036 clips that the larger corpus has of its 26 held-out groups" in more
    epochs = quick.given_away.epochs
    assert f"from each of 2 seeds for {epochs} epochs in batches of 32" in released.method(told, quick)
    del told["13_domain_shift"]
    assert len(released.found_sentences(told, quick)) == 1, "not asked the same clips"
    told["11_timeline"]["metrics"]["published"] = PUBLISHED | {"notebook": "02_baseline_cnn"}
    assert not released.found_sentences(told, quick), "one of those that are compared"


def test_recipes_are_traced_to_their_log_with_its_own_commit_and_seeds(study, tmp_path):
    recipe = {"trial": "simple", "change": "60 clips a class", "examples": 29011, "judged": 0.41}
    told = json.loads((study / "results.json").read_text())
    told["notebooks"]["13_domain_shift"] = {
        "metrics": {"findings": ["Of one recipe."], "trials": [recipe]},
        "manifest": MANIFEST | {"notebook": "13_domain_shift"},
    }
    (study / "results.json").write_text(json.dumps(told))
    (tmp_path / "notebooks/13_trials.json").write_text(json.dumps({"commit": "1eaf00000000", "seeds": [4, 5]}))
    figures = tmp_path / "figures" / STUDY
    shutil.copy(figures / "01_class_balance.png", figures / "13_recipes_by_domain.png")
    traced = [block for block in blocks(argument(STUDY)) if "1eaf00000000, seeds 4 and 5" in json.dumps(block)]
    assert [block["kind"] for block in traced] == ["source", "table", "figure", "list"]
    assert traced[1]["rows"] == (("simple", "60 clips a class", "29,011", "0.410"),)
    assert {"text": "notebooks/13_trials.json", "url": "../../notebooks/13_trials.json"} in traced[2]["source"]
    assert "in none of these checks" in words(traced[3]["items"][-1])


def test_every_sound_world_has_its_licence_and_the_way_to_it():
    told = {"13_domain_shift": {"metrics": {"domains": ["rendered", "FluidR3_GM", "fsdkaggle2018"]}}}
    used = worlds.used("rendered", told)
    assert [row[0] for row in worlds.table(used).rows] == ["rendered", "FluidR3_GM", "fsdkaggle2018"]
    assert all(cell != "–" for row in worlds.table(used).rows for cell in row)
    assert "[@fsdkaggle2018; @fonseca2018]" in worlds.others_sentence(used, "4.2")
    needs = " ".join(worlds.needs(used))
    assert "Debian: fluid-soundfont-gm" in needs and "INSTRLIB_CORPORA=fsdkaggle2018=/path" in needs
    assert worlds.others_sentence(worlds.used("rendered", {}), "") == ""


def test_where_classes_are_divided_the_section_says_which_are_told_apart_and_on_how_many_clips():
    classes = [{"name": name, "parts": [30, 9, 11]} for name in ("cello", "clarinet", "flute", "guitar")]
    metrics = {"heads": [{"training_clips": 60.0, "validation_clips": 18.0}]}
    said = task_sentence(metrics, classes)
    assert "(cello and flute). Models trained anew tell apart the other 2 (clarinet and guitar): 60 clips" in said
    assert "22 for test" in said
    assert "clarinet" not in task_sentence({"heads": [{"training_clips": 7.0}]}, classes), "not the same clips"


def test_numbers_have_one_form_whoever_wrote_them():
    assert typeset("-0.033 [-.1, +0.2], 58% and 5 %, 1.0e-05") == (
        f"−0.033 [−.1, +0.2], 58{NO_BREAK}% and 5{NO_BREAK}%, 1.0e−05"
    )
    untouched = "3-s clips of 2004-05, 6da97-ec3b, v-2, a/-1, CC-BY-4.0"
    assert typeset(untouched) == untouched
    (piece,) = bibliography.Citations().pieces("`x -1 %`")
    assert piece["text"] == "x -1 %", "code stays as it is"


def test_a_p_that_no_test_gave_stops_no_report():
    assert keys.key_table("01", {"leak": {}, "leak_difference": SCORE | {"p": None}}).caption.endswith("p unknown).")
    (table,) = metric_tables({"difference": SCORE | {"p": None}})
    assert table.rows == (("difference", "0.875 [0.800, 0.925], p unknown"),)


def test_sections_point_at_their_tables_and_figures_and_figures_at_their_full_size(study, page):
    baseline = argument(STUDY)["sections"][3]["sections"][2]
    pointer = next(block for block in baseline["blocks"] if block["kind"] == "text")
    assert words(pointer["pieces"]) == "Shown in Table 5, Figure 1."
    assert f"../../figures/{STUDY}/02_model_comparison.svg" in page.attributes("a", "href")


def test_captions_of_pairs_say_of_how_many():
    row = {"first": "a", "second": "b", "difference": 0.1, "low": 0.0, "high": 0.2, "p_holm": 0.5}
    assert "on 396 test versions" in keys.key_table("12", {"differences": [row], "n_tested": 396}).caption


def test_numbers_become_tables_by_their_form():
    tables = list(
        metric_tables(
            {
                "n": 3,
                "ok": True,
                "tiny": 0.00001,
                "nothing": None,
                "empty": {},
                "long": list(range(100)),
                "parts": {"train": 10, "test": 2.5},
                "pairs": [{"a": "x", "count": 4}, {"a": "y", "share": 0.5}],
                "deep": {"one": {"two": {"three": 1}}, "own": 2},
                "matrix": [[1, 2], [3, 4]],
                "difference": {"estimate": 0.1, "low": math.nan, "high": math.nan, "p": 0.25},
            }
        )
    )
    assert [(table.caption, table.header, table.rows) for table in tables] == [
        (
            "",
            (),
            (
                ("n", "3"),
                ("ok", "yes"),
                ("tiny", "1.0e-05"),
                ("nothing", "–"),
                ("long", "100 values"),
                ("difference", "0.100, p = 0.250"),
            ),
        ),
        ("parts", (), (("train", "10"), ("test", "2.500"))),
        ("pairs", ("", "a", "count", "share"), (("1", "x", "4", ""), ("2", "y", "", "0.500"))),
        ("deep", (), (("own", "2"),)),
        ("deep: one", ("", "three"), (("two", "1"),)),
        ("matrix", (), (("1", "1, 2"), ("2", "3, 4"))),
    ]
