"""The page in a real browser: what a person does with it, and what must not happen while they do."""

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import write_tone

from instrlib.deploy import analysis
from instrlib.deploy import page as served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 30_000
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}
FAKE_MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("event_loops_closed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium; install it (Debian: apt-get install chromium)"),
]

_called: list[str | bytes | None] = []
_watching = threading.Event()


def _watch(event: str, arguments: tuple) -> None:
    if not _watching.is_set():
        return
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        _called.append(arguments[1][0])
    elif event == "socket.getaddrinfo":
        _called.append(arguments[0])


sys.addaudithook(_watch)  # cannot be removed; does nothing unless it is told to watch


@pytest.fixture(scope="module")
def address(page_folder: Path) -> Iterator[str]:
    _called.clear()
    _watching.set()
    with served.opened(page_folder) as address:
        yield address
    _watching.clear()


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_MICROPHONE])
        yield browser
        browser.close()


@pytest.fixture
def visit(address, chromium) -> Iterator:
    """Return a function that opens the page as a user of its own; a message of a script that fails fails the test."""
    contexts, errors, asked = [], [], []

    def visit(size: str = "wide"):
        context = chromium.new_context(viewport=SIZES[size], accept_downloads=True, permissions=["microphone"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.locator("#result article").wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors
    foreign = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not foreign


def give(page, path: Path) -> None:
    """Put a file into the page as a person would, in place of what is there."""
    page.locator("#recording :is(button[aria-label='Clear'], input[type=file])").first.wait_for(state="attached")
    clear = page.locator("#recording button[aria-label='Clear']")
    if clear.count():
        clear.first.click()
    page.locator("#recording input[type=file]").set_input_files(path)


def wait_for_result(page, name: str) -> str:
    page.locator("#result .file", has_text=name).wait_for()
    return page.locator("#result article").inner_text()


def downloaded(page, ending: str) -> bytes:
    with page.expect_download() as waiting:
        page.locator(f"#result a[download$='.{ending}']").click()
    return Path(waiting.value.path()).read_bytes()


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tones")
    return {
        "low": write_tone(folder / "low note.wav", duration_s=4, pitch=0),
        "high": write_tone(folder / "high note.wav", duration_s=6, pitch=11),
    }


def test_it_opens_on_an_example_that_is_analysed_and_can_be_heard(visit):
    page = visit()
    assert "Example" in page.locator("#result .file").inner_text()
    assert page.locator("#result .bars dt").count() >= 3
    player = page.locator("#result audio")
    player.evaluate("player => player.play()")
    page.wait_for_function("document.querySelector('#result audio').currentTime > 0.2")
    assert player.evaluate("player => player.duration") == pytest.approx(6.3, abs=0.2)
    assert page.title() == "Which instrument is it?"


def test_a_file_is_uploaded_analysed_shown_and_removed(visit, tones):
    page = visit()
    give(page, tones["low"])
    said = wait_for_result(page, "low note.wav")
    assert re.search(r"\d\s?%", said) and "Timeline" in said and "Saliency map" in said
    assert "simulated" in said
    for image in page.locator("#result img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 100")
    assert left_behind() == []
    # It can still be heard: the browser has it.
    page.locator("#recording button[aria-label='Play']").click()
    page.locator("#recording button[aria-label='Pause']").wait_for()
    page.wait_for_function("document.querySelector('#recording').innerText.includes('0:01')")


def test_what_takes_time_shows_how_far_it_is(visit, tones, monkeypatch):
    """Slowed down, so that there is something to see."""
    page = visit()
    go_on = threading.Event()
    original = served.analyse

    def slowly(path, model, *, on_progress, **others):
        on_progress(0.4, "Computing the timeline")
        go_on.wait(20)
        return original(path, model, on_progress=on_progress, **others)

    monkeypatch.setattr(served, "analyse", slowly)
    give(page, tones["low"])
    page.get_by_text("Computing the timeline").first.wait_for()
    assert page.locator("#result article").count() == 0, "the result of the recording before is still there"
    go_on.set()
    wait_for_result(page, "low note.wav")


def test_the_report_and_the_numbers_can_be_downloaded(visit, tones):
    page = visit()
    give(page, tones["high"])
    wait_for_result(page, "high note.wav")
    assert downloaded(page, "pdf").startswith(b"%PDF-")
    numbers = json.loads(downloaded(page, "json"))
    assert numbers["file"]["name"] == "high note.wav"
    assert numbers["file"]["duration_s"] == pytest.approx(6)
    assert sum(numbers["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"this is no sound", "cannot be decoded"), (b"", "empty"), (None, "10.2 minutes")],
    ids=["no audio", "empty", "too long"],
)
def test_what_cannot_be_used_gets_a_sentence_and_the_page_goes_on(visit, tones, tmp_path, content, said):
    page = visit()
    path = tmp_path / "holiday.wav"
    if content is None:
        write_tone(path, duration_s=610, sample_rate_hz=1000)
    else:
        path.write_bytes(content)
    give(page, path)
    alert = page.locator("#status [role=alert]", has_text=said)
    alert.wait_for()
    text = alert.inner_text()
    assert text.startswith("holiday.wav: ") and text.endswith(".") and "Traceback" not in text and "/" not in text
    assert left_behind() == []
    give(page, tones["low"])
    wait_for_result(page, "low note.wav")
    assert page.locator("#status [role=alert]").count() == 0


def test_the_microphone_is_recorded_and_analysed(visit):
    """Chromium's made-up microphone beeps once a second."""
    page = visit()
    page.locator("#recording button[aria-label='Record audio']").click()
    page.locator("#recording .record-button").click()
    page.wait_for_timeout(2500)
    page.locator("#recording .stop-button").click()
    said = wait_for_result(page, ".wav")
    assert "Example" not in said
    assert left_behind() == []


def test_two_users_at_once_keep_their_own_results(visit, tones):
    first, second = visit(), visit()
    give(first, tones["low"])
    give(second, tones["high"])
    wait_for_result(first, "low note.wav")
    wait_for_result(second, "high note.wav")
    assert json.loads(downloaded(first, "json"))["file"]["duration_s"] == pytest.approx(4)
    assert json.loads(downloaded(second, "json"))["file"]["duration_s"] == pytest.approx(6)


def test_two_users_who_give_the_same_file_both_get_their_result(visit, tones, monkeypatch):
    """Gradio keeps it once for both; the first one to be done must not remove it under the other."""
    first, second = visit(), visit()
    both_given, first_done = threading.Event(), threading.Event()
    original, turns = served.analyse, iter([both_given, first_done])

    def in_turns(path, model, **others):
        assert next(turns).wait(WAIT_MS / 1000)
        return original(path, model, **others)

    monkeypatch.setattr(served, "analyse", in_turns)
    give(first, tones["low"])
    first.locator("#result article").wait_for(state="detached")
    give(second, tones["low"])
    second.locator("#result article").wait_for(state="detached")
    second.get_by_text("processing").first.wait_for()
    both_given.set()
    wait_for_result(first, "low note.wav")
    assert left_behind() == ["low note.wav"]
    first_done.set()
    wait_for_result(second, "low note.wav")
    assert left_behind() == []


def test_on_a_narrow_screen_nothing_has_to_be_scrolled_sideways(visit, tones):
    page = visit("narrow")
    give(page, tones["low"])
    wait_for_result(page, "low note.wav")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["narrow"]["width"]
    for element in page.locator("#result section, #result img, #recording").all():
        box = element.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES["narrow"]["width"]
    assert page.locator("#result p").first.evaluate("text => parseFloat(getComputedStyle(text).fontSize)") >= 14


def test_the_server_called_no_other_machine_in_all_of_this(address):
    assert _called, "not even its own start was seen: nothing is watched"
    assert set(_called) <= {None, "127.0.0.1", "localhost", "::1"}


def test_a_name_that_is_looked_up_is_seen_though_nothing_is_connected(address):
    n_called = len(_called)
    with contextlib.suppress(OSError):
        socket.getaddrinfo("name.invalid", 80)
    assert _called.pop() == "name.invalid" and len(_called) == n_called


def left_behind() -> list[str]:
    """Names of the uploads that are still there."""
    return [path.name for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]


def test_the_limit_of_the_page_is_that_of_the_analysis(visit):
    hint = visit().locator(".hint").inner_text()
    assert f"up to {analysis.MAX_DURATION_S / 60:.0f} minutes and {served.MAX_MB} MB" in hint
