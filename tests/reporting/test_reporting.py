"""Report, cards, README and comparisons say what the notebooks declare: all of it, and nothing else."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from instrlib import charts
from instrlib.core.io import InstrlibError, RunError, write_json
from instrlib.data import corpora
from instrlib.reporting import cards, compare, numbers, report, summary
from instrlib.reporting.summary import about_corpus, open_study


@pytest.fixture
def results() -> dict:
    """Return a study of nine notebooks, with everything that a notebook can declare."""
    rows, notebooks = [], {}
    for number in range(1, 10):
        name, middle = f"{number:02d}_topic", 0.1 * number
        row = {"notebook": name, "question": f"Question {number}?", "first": f"model {number}", "second": "baseline"}
        row |= {"score": "accuracy", "difference": middle, "low": middle - 0.05, "high": middle + 0.05, "p": 0.01}
        rows.append(row | {"margin": 0.02, "detectable": 0.09, "verdict": numbers.VERDICTS[number % 4]})
        notebooks[name] = {
            "title": f"{number:02d} · Topic {number}",
            "question": f"What of {number}?",
            "methods": [f"Method {number} follows [@yun2019]."],
            "findings": [{"text": f"Finding {number} is 0.{number}00.", "key": number in (2, 5), "numbers": {}}],
            "figures": [{"name": f"{number:02d}_scores", "caption": f"Caption {number}.", "key": number == 5}],
            "numbers": {"n_tested": 100 + number, "scores": {"a": {"accuracy": 0.5}, "b": {"accuracy": None}}},
            "manifest": {
                "parameters": {"corpus": "irmas", "data": "", "profile": "quick", "seeds": 3},
                "corpus": {"title": "IRMAS", "licence": "CC BY-NC-SA 3.0", "citation": "Bosch et al., 2012"},
                "inputs": {"features": "feedfacecafebeef"},
                "versions": {"numpy": "2.4.6"},
                "commit": "abc123def456",
            },
        }
    rows[8] |= {"difference": None, "low": None, "high": None, "p": None, "verdict": "inconclusive"}
    notebooks["01_topic"]["facts"] = {"clips": 6705, "groups": 2000}
    notebooks["01_topic"]["cards"] = [
        {"card": "data", "heading": "Classes", "content": {"cello": {"clips": 388, "groups": 120}}},
        {"card": "model", "heading": "Other sounds", "content": "Accuracy falls to 0.4."},
    ]
    return {"study": "irmas-quick", "primary": rows, "notebooks": notebooks}


@pytest.fixture
def published(tmp_path, results):
    """Return the folder of the study in `reports/`, its figures drawn."""
    folder = tmp_path / "reports" / "irmas-quick"
    write_json(folder / "results.json", results)
    figure = charts.dots(names=["a", "b"], values=np.array([0.2, 0.4]))
    for number in range(1, 10):
        charts.save(figure, tmp_path / "figures" / "irmas-quick", f"{number:02d}_scores")
    return folder


def test_the_wording_of_the_verdicts_is_the_reviewed_one():
    names = ("verdict", "difference", "low", "high", "p", "detectable")
    better = ("better", 0.05, 0.01, 0.09, 0.0121, None)
    others = ("worse", -0.05, -0.09, -0.01, 0.0004, None), ("equivalent", -0.0002, -0.008, 0.008, 0.9, None)
    unknown = ("inconclusive", 0.1, float("nan"), None, None, None)
    terms = {"margin": 0.01, "first": "cutMix", "second": "no augmentation", "score": "accuracy"}
    rows = [better, *others, ("inconclusive", -0.018, -0.096, 0.051, 0.6, 0.0914), unknown, (*better, 0.042)]
    *found, dashes, holm = (numbers.sentence(dict(zip((*names, "p_holm"), row, strict=False)) | terms) for row in rows)
    assert "\n".join(found) + "\n" == (Path(__file__).parent / "wording.txt").read_text(encoding="utf-8")
    assert "p = 0.042" in holm and not re.search(r"\bnan\b|None|– to –", dashes)


def blocks(document, kind):
    return [block for section in document["sections"] for block in section["blocks"] if block["kind"] == kind]


def text_of(pieces):
    return "".join(piece["text"] for piece in pieces)


def test_citations_are_numbered_in_order_and_an_unknown_work_is_refused():
    document = report.Document()
    pieces = document.pieces("A [@zhang2018; @yun2019] and **b** of `c` in [d](e.md) [@yun2019].")
    assert [one["text"] for one in pieces if "cite" in one] == ["[1]", "[2]", "[2]"]
    assert [kind for one in pieces for kind in ("strong", "code", "url") if kind in one] == ["strong", "code", "url"]
    first, second = document.plain()["works"]
    assert (first["number"], second["number"]) == (1, 2) and "CutMix" in text_of(second["pieces"])
    assert any("emphasis" in piece for piece in second["pieces"]) and any("url" in piece for piece in second["pieces"])
    with pytest.raises(InstrlibError, match="nobody2000"):
        document.pieces("[@nobody2000]")


def test_the_report_holds_every_notebook_finding_figure_and_primary_comparison_once(published):
    document = report.report(open_study("irmas-quick"))
    facts = {"clips": "6,705 of 9,579", "groups": "2,000", "profile": "quick", "seeds": "3", "commit": "abc123def456"}
    assert dict(document["about"]) == {"corpus": "IRMAS (irmas)"} | facts
    first, *others, _ = document["sections"]
    assert [section["id"] for section in others] == [f"{n:02d}_topic" for n in range(1, 10)]
    found = [text_of(item) for block in blocks(document, "list") for item in block["items"]]
    assert all(f"Finding {n} is 0.{n}00." in found for n in range(1, 10))
    assert sorted(block["stem"] for block in blocks(document, "figure")) == [f"{n:02d}_scores" for n in range(1, 10)]
    (table,) = [block for block in blocks(document, "table") if block["header"][:1] == ["Question"]]
    assert len(table["rows"]) == 9 and table["rows"][8][2:5] == ["–", "– to –", "no p-value"]
    summary = {block["kind"]: block for block in first["blocks"]}
    assert summary["figure"]["stem"] == "05_scores" and len(summary["list"]["items"]) == 2
    for kind in ("figure", "table"):
        shown = blocks(document, kind)
        assert [block["number"] for block in shown] == list(range(1, len(shown) + 1))
    assert not any(map(report.as_table, ({"a": 1}, {"a": {"b": {"c": 1}}}, {}, {str(n): {"x": 1} for n in range(30)})))


def test_html_and_pdf_are_the_same_each_time_texts_are_never_markup_and_a_missing_figure_is_named(published, results):
    results["notebooks"]["02_topic"]["findings"][0]["text"] = "<script>alert(1)</script> #let x = 1 $y$"
    write_json(published / "results.json", results)
    html, pdf = ([path.read_bytes() for path in report.write_report(open_study("irmas-quick"))] for _ in range(2))
    assert html == pdf
    page = html[0].decode()
    assert html[1].startswith(b"%PDF") and page.count("<img") == 9 and page.count("data:image/png") == 9
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.partition('<section id="references">')[0])
    (published.parents[1] / "figures/irmas-quick/03_scores.png").unlink()
    with pytest.raises(RunError, match="03_scores"):
        report.write_report(open_study("irmas-quick"))


def test_numbers_and_tables_as_texts():
    assert [numbers.rounded(one) for one in (0.0912, 0.0134, 0.2)] == ["0.09", "0.013", "0.2"]
    assert summary.text_of([12345, 0.25, None, True]) == "12,345, 0.250, –, yes"
    assert report.typeset("-0.5 to +0.1, 5%, 2026-11-30") == "−0.5 to +0.1, 5\N{NO-BREAK SPACE}%, 2026-11-30"
    assert report.as_table({"a": {"accuracy": 0.5}}) == (("", "accuracy"), [("a", "0.500")])


def test_a_study_is_found_by_name_folder_file_and_revision(published, tmp_path, results):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "reports"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    results["notebooks"]["01_topic"]["manifest"]["commit"] = "another"
    write_json(published / "results.json", results)
    for place in ("irmas-quick", published, published / "results.json"):
        assert "another" in open_study(place).about()["commit"] and open_study(place).label == "irmas-quick"
    old = open_study("irmas-quick@HEAD")
    assert (old.about()["commit"], old.label) == ("abc123def456", "irmas-quick@HEAD")
    for missing in ("irmas-quick@no-such", "nothing-quick"):
        with pytest.raises(RunError, match=missing.rpartition("@")[2]):
            open_study(missing)
    for held in ("[]", "{}", '{"notebooks": {}}'):
        (published / "results.json").write_text(held)
        with pytest.raises(RunError, match="no results"):
            open_study("irmas-quick")


@pytest.mark.parametrize("changed", [{"data": "mine"}, {"profile": "full"}, {"seeds": 5}])
def test_a_report_never_mixes_two_data_sets(changed, published, results):
    results["notebooks"]["04_topic"]["manifest"]["parameters"] |= changed
    write_json(published / "results.json", results)
    with pytest.raises(RunError, match="04_topic"):
        report.report(open_study("irmas-quick"))


def test_what_differs_between_two_studies(published, tmp_path, results):
    one = open_study("irmas-quick")
    for entry in results["notebooks"].values():
        entry["manifest"]["commit"] = "another"
    results["primary"][0]["difference"] = 0.3
    results["primary"][1]["verdict"] = "better"
    del results["primary"][4]
    results["notebooks"]["03_topic"]["numbers"]["n_tested"] = 7
    write_json(tmp_path / "other/results.json", results)
    other = open_study(tmp_path / "other")
    found = {name: rows for name, (_, rows) in compare.compare(one, other).items()}
    assert found["settings"] == [("commit", "abc123def456", "another")]
    assert found["numbers"] == [("03_topic / n_tested", "103", "7")]
    assert len(found["primary"]) == 9
    assert [row[-1] for row in found["primary"][1:6:3]] == ["equivalent / better", "worse / missing"]
    assert compare.agreement(one, other).startswith("7 of 9 ") and "0.2" in compare.agreement(one, other)
    assert compare.agreement(one, one).startswith("9 of 9 ")
    assert not compare.compare(one, one)["settings"][1] and not compare.compare(one, one)["numbers"][1]


def test_the_interval_of_a_change_adds_squares():
    """Where both intervals are symmetric, MOVER is the root of the sum of squares."""
    first, second = ({"difference": d, "low": d - half, "high": d + half} for d, half in ((0.1, 0.03), (0.4, 0.04)))
    assert compare.change(first, second) == pytest.approx((0.3, 0.25, 0.35))


def test_cards_hold_facts_terms_and_declared_sections_once_and_every_corpus_has_its_words(published):
    write_json(published / "model/model.json", {})
    (published / "model/MODEL_CARD.md").write_text("# Model card\n\nOwn text.\n")
    for _ in range(2):
        data, model = (path.read_text() for path in cards.write_cards(open_study("irmas-quick")))
    parts = ("# Data card: IRMAS", "| 6,705 of 9,579 |", "CC BY-NC-SA 3.0", "abc123def456", "| cello | 388 | 120 |")
    assert all(part in data for part in parts) and "Other sounds" not in data
    assert model.startswith("# Model card\n\nOwn text.\n") and model.count("## Other sounds") == 1
    for name in (*corpora.NAMES, "one of your own"):
        assert set(about_corpus(name)) - {"clips"} == {"what", "groups", "blind", "use", "limits"}


README = (
    "a\n<!-- notebooks -->\nstale\n<!-- end of notebooks -->\n"
    "b\n<!-- results: irmas-quick 05_scores -->\nstale\n<!-- end of results -->\nc\n"
)


def test_readme_quotes_five_findings_key_ones_first_and_is_refused_without_its_marks_or_figure(published):
    text = cards.renewed(README)
    assert re.findall(r"^- .*\(\[(\d+)\]", text, re.M) == ["02", "05", "01", "02", "03"]
    assert "![Caption 5.](figures/irmas-quick/05_scores.png)" in text
    assert "6,705 of 9,579 clips" in text and "abc123def456" in text
    assert text.startswith("a\n") and text.endswith("\nc\n") and "stale" not in text
    assert cards.renewed(text) == text
    for cut in ("<!-- end of results -->", "<!-- notebooks -->", " 05_scores", "5_scores"):
        with pytest.raises(InstrlibError, match="mark"):
            cards.renewed(README.replace(cut, ""))
