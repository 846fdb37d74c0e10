"""Report, cards, README and comparisons say what the notebooks declare: all of it, and nothing else."""

import json
import re
import subprocess
from pathlib import Path

import example_study as made
import pytest

from instrlib.core.io import ConfigError, InstrlibError, RunError, write_json
from instrlib.reporting import cards, compare, document, readme, render, summary, verdicts
from instrlib.reporting.citations import Citations
from instrlib.reporting.summary import open_study

# -- sentences ---------------------------------------------------------------------------------------------------------


def row(verdict, difference, low, high, p):
    ends = {"difference": difference, "low": low, "high": high, "p": p}
    return ends | {"margin": 0.01, "detectable": 0.0914, "verdict": verdict}


ROWS = [
    row("better", 0.05, 0.01, 0.09, 0.0121),
    row("worse", -0.05, -0.09, -0.01, 0.0004),
    row("equivalent", -0.0002, -0.008, 0.008, 0.9),
    row("inconclusive", -0.018, -0.096, 0.051, 0.6),
]


def test_the_wording_of_the_verdicts_is_the_reviewed_one():
    said = [verdicts.sentence(one, first="CutMix", second="no augmentation", score="accuracy") for one in ROWS]
    assert "\n".join(said) + "\n" == (Path(__file__).parent / "wording.txt").read_text(encoding="utf-8")


def test_a_corrected_p_is_quoted_where_there_is_one():
    said = verdicts.sentence(ROWS[0] | {"p_holm": 0.042}, first="a", second="b", score="F1")
    assert "0.042" in said and "0.012" not in said


def test_a_comparison_without_an_interval_names_no_number_that_is_not_there():
    nan = float("nan")
    for row_ in (row("inconclusive", 0.1, nan, nan, nan), row("inconclusive", None, None, None, None)):
        said = verdicts.sentence(row_ | {"detectable": None}, first="a", second="b", score="F1")
        assert "nan" not in said.lower().replace("inconclusive", "") and "– to –" not in said and "None" not in said


def test_an_unknown_verdict_is_refused():
    with pytest.raises(ConfigError, match="not shown"):
        verdicts.sentence(row("not shown", 0.0, 0.0, 0.0, 1.0), first="a", second="b", score="F1")


def test_citations_are_numbered_in_order_and_an_unknown_work_is_refused():
    cited = Citations()
    pieces = cited.pieces("A [@zhang2018; @yun2019] and **b** of `c` in [d](e.md) [@yun2019].")
    assert [one["text"] for one in pieces if "cite" in one] == ["[1]", "[2]", "[2]"]
    assert [kind for one in pieces for kind in ("strong", "code", "url") if kind in one] == ["strong", "code", "url"]
    assert [work["number"] for work in cited.works()] == [1, 2]
    with pytest.raises(InstrlibError, match="nobody2000"):
        cited.pieces("[@nobody2000]")


# -- report ------------------------------------------------------------------------------------------------------------


def blocks(report, kind):
    return [block for section in report["sections"] for block in section["blocks"] if block["kind"] == kind]


def text_of(pieces):
    return "".join(piece["text"] for piece in pieces)


def test_the_report_holds_every_notebook_finding_figure_and_primary_comparison(published):
    report = document.report(open_study("irmas-quick"))
    assert [section["id"] for section in report["sections"][1:-1]] == [f"{number:02d}_topic" for number in range(1, 10)]
    said = [text_of(item) for block in blocks(report, "list") for item in block["items"]]
    assert all(f"Finding {number} is 0.{number}00." in said for number in range(1, 10))
    assert sorted(block["stem"] for block in blocks(report, "figure")) == [f"{n:02d}_scores" for n in range(1, 10)]
    (table,) = [block for block in blocks(report, "table") if block["header"][:1] == ["Question"]]
    assert len(table["rows"]) == 9
    assert table["rows"][8][2:5] == ["–", "– to –", "no p-value"]


def test_it_begins_with_corpus_facts_profile_seeds_and_commit(published):
    assert dict(document.report(open_study("irmas-quick"))["about"]) == {
        "corpus": "IRMAS (irmas)",
        "clips": "6,705 of 9,579",
        "groups": "2,000",
        "profile": "quick",
        "seeds": "3",
        "commit": "abc123def456",
    }


def test_key_figures_and_findings_stand_in_the_summary_and_figures_only_there(published):
    summary, *others = document.report(open_study("irmas-quick"))["sections"]
    assert [block["stem"] for block in summary["blocks"] if block["kind"] == "figure"] == ["05_scores"]
    assert "05_scores" not in {block.get("stem") for section in others for block in section["blocks"]}
    (found,) = [block for block in summary["blocks"] if block["kind"] == "list"]
    assert len(found["items"]) == 2


def test_figures_and_tables_are_numbered_in_their_order(published):
    report = document.report(open_study("irmas-quick"))
    for kind in ("figure", "table"):
        shown = blocks(report, kind)
        assert [block["number"] for block in shown] == list(range(1, len(shown) + 1))


def test_html_and_pdf_are_made_of_one_document_and_the_same_each_time(published, monkeypatch):
    study = open_study("irmas-quick")
    first = [path.read_bytes() for path in render.write_report(study)]
    seen = []
    for name in ("write_html", "write_pdf"):
        own = getattr(render, name)
        monkeypatch.setattr(
            render, name, lambda plain, path, own=own: seen.append(json.dumps(plain)) or own(plain, path)
        )
    assert [path.read_bytes() for path in render.write_report(study)] == first
    assert seen[0] == seen[1]
    assert first[1].startswith(b"%PDF")
    page = first[0].decode()
    assert page.count("<img") == 9 and page.count("data:image/png") == 9
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.partition('<section id="references">')[0])


def test_texts_of_a_notebook_are_never_markup(published):
    results = made.results()
    results["notebooks"]["02_topic"]["findings"][0]["text"] = "<script>alert(1)</script> #let x = 1 $y$"
    write_json(published / "results.json", results)
    html, pdf = render.write_report(open_study("irmas-quick"))
    assert "<script>" not in html.read_text() and "&lt;script&gt;" in html.read_text()
    assert pdf.stat().st_size > 1_000


def test_a_missing_figure_is_named(published, tmp_path):
    (tmp_path / "figures/irmas-quick/03_scores.png").unlink()
    with pytest.raises(RunError, match="03_scores"):
        render.write_report(open_study("irmas-quick"))


@pytest.mark.parametrize("value", [{"a": 1}, {"a": {"b": {"c": 1}}}, {}, {str(n): {"x": 1} for n in range(30)}, 5])
def test_what_is_no_table_or_too_large_is_not_laid_out(value):
    assert document.as_table(value) is None


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_study_is_found_by_name_folder_and_file(published):
    for place in ("irmas-quick", published, published / "results.json"):
        assert len(open_study(place).notebooks) == 9


def test_a_study_is_read_at_a_revision(published, tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "reports"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    write_json(published / "results.json", made.results("another"))
    assert open_study("irmas-quick@HEAD").about()["commit"] == "abc123def456"
    assert open_study("irmas-quick@HEAD").label == "irmas-quick@HEAD"
    with pytest.raises(RunError, match="no-such"):
        open_study("irmas-quick@no-such")


@pytest.mark.parametrize("changed", [{"data": "mine"}, {"profile": "full"}, {"seeds": 5}])
def test_a_report_never_mixes_two_data_sets(changed, published):
    results = made.results()
    results["notebooks"]["04_topic"]["manifest"]["parameters"] |= changed
    write_json(published / "results.json", results)
    with pytest.raises(RunError, match="04_topic"):
        document.report(open_study("irmas-quick"))


@pytest.mark.parametrize("held", ["[]", "{}", '{"notebooks": {}}'])
def test_what_is_no_study_is_refused(held, published):
    (published / "results.json").write_text(held)
    with pytest.raises(RunError):
        open_study("irmas-quick")
    with pytest.raises(RunError):
        open_study("nothing-quick")


# -- comparison --------------------------------------------------------------------------------------------------------


def test_what_differs_between_two_studies(published, tmp_path):
    other = made.results("another")
    other["primary"][0]["difference"] = 0.3
    other["primary"][1]["verdict"] = "better"
    del other["primary"][4]
    other["notebooks"]["03_topic"]["numbers"]["n_tested"] = 7
    write_json(tmp_path / "other/results.json", other)
    found = compare.compare("irmas-quick", tmp_path / "other")
    assert ("commit", "abc123def456", "another") in found.settings and len(found.settings) == 1
    assert found.numbers == [("03_topic", "n_tested", "103", "7")]
    assert len(found.primary) == 9
    assert [one[-1] for one in found.primary[1:6:3]] == ["equivalent / better", "worse / missing"]
    assert compare.agreement(found.first, found.second).startswith("7 of 9 ")
    assert "0.2" in compare.agreement(found.first, found.second)
    page = compare.write_page(found)
    assert page.parent.name == "compare" and "n_tested" in page.read_text()


def test_a_study_compared_with_itself_differs_in_nothing(published):
    found = compare.compare("irmas-quick", "irmas-quick")
    assert not found.settings and not found.numbers
    assert compare.agreement(found.first, found.second).startswith("9 of 9 ")


def test_the_interval_of_a_change_adds_squares():
    """Where both intervals are symmetric, MOVER is the root of the sum of squares."""
    first, second = ({"difference": d, "low": d - half, "high": d + half} for d, half in ((0.1, 0.03), (0.4, 0.04)))
    assert compare.mover(first, second) == pytest.approx((0.25, 0.35))


# -- cards and README --------------------------------------------------------------------------------------------------


def test_the_data_card_has_facts_terms_and_declared_sections(published):
    (path,) = cards.write_cards(open_study("irmas-quick")).values()
    text = path.read_text()
    assert path.name == "DATA_CARD.md"
    for part in (
        "# Data card: IRMAS",
        "| clips | 6,705 of 9,579 |",
        "CC BY-NC-SA 3.0",
        "| cello | 388 | 120 |",
        "abc123def456",
    ):
        assert part in text
    assert "Other sounds" not in text


def test_declared_sections_are_added_to_the_model_card_once(published):
    write_json(published / "model/model.json", {})
    (published / "model/MODEL_CARD.md").write_text("# Model card\n\nOwn text.\n")
    for _ in range(2):
        cards.write_cards(open_study("irmas-quick"))
    text = (published / "model/MODEL_CARD.md").read_text()
    assert text.startswith("# Model card\n\nOwn text.\n") and text.count("## Other sounds") == 1


def test_every_corpus_has_its_words():
    from instrlib.data import corpora

    for name in (*corpora.NAMES, "one of your own"):
        assert set(summary.about_corpus(name)) - {"clips"} == {"what", "groups", "blind", "use", "limits"}


README = (
    "a\n<!-- notebooks -->\nstale\n<!-- end of notebooks -->\n"
    "b\n<!-- results: irmas-quick 05_scores -->\nstale\n<!-- end of results -->\nc\n"
)


def test_readme_quotes_key_findings_first_and_five_at_most(published):
    text = readme.renewed(README)
    bullets = re.findall(r"^- (.*)", text, re.M)
    assert len(bullets) == 5
    assert [re.search(r"\(\[(\d+)\]", one)[1] for one in bullets] == ["02", "05", "01", "02", "03"]
    assert "![Caption 5.](figures/irmas-quick/05_scores.png)" in text
    assert "6,705 of 9,579 clips" in text and "abc123def456" in text
    assert text.startswith("a\n") and text.endswith("\nc\n") and "stale" not in text
    assert readme.renewed(text) == text


@pytest.mark.parametrize("cut", ["<!-- end of results -->", "<!-- notebooks -->"])
def test_readme_without_its_marks_is_refused(cut, published):
    with pytest.raises(InstrlibError, match="marks"):
        readme.renewed(README.replace(cut, ""))


def test_readme_with_an_unknown_figure_is_refused(published):
    with pytest.raises(InstrlibError, match="99_none"):
        readme.renewed(README.replace("05_scores", "99_none"))
