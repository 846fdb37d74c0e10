"""The page without a browser: what it computes, what it sends, what it serves and what it refuses."""

import base64
import dataclasses
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
from recordings import SIMULATED, made_up_analysis, write_tone
from signals import heeding
from trees import tone

from instrlib.audio.decode import load
from instrlib.core.errors import AudioError, ConfigError, CorpusError, RunError
from instrlib.data.rendered import sampler
from instrlib.deploy import analysis, page
from instrlib.models import published
from instrlib.studies import condition

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.usefixtures("event_loops_closed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
]


@pytest.fixture(scope="module")
def model(page_folder):
    return published.open_model(page_folder)


def fields(values: dict, prefix: str = "") -> set[str]:
    """Names of all values, those inside of the first dict with dots."""
    names = set()
    for name, value in values.items():
        names |= (
            {f"{name}.{inner}" for inner in value} if name in ("file", "segment", "timeline", "condition") else {name}
        )
    return names


# -- the analysis ------------------------------------------------------------------------------------------------------


def test_a_recording_is_analysed_in_every_respect_and_every_stage_is_told(model, tmp_path):
    path = write_tone(tmp_path / "tone.wav", duration_s=7.5)
    told = []
    made = analysis.analyse(path, model, on_progress=lambda share, stage: told.append((share, stage)))
    assert made.name == "tone.wav" and made.duration_s == pytest.approx(7.5)
    assert made.prediction.probabilities.sum() == pytest.approx(1)
    assert made.timeline.scores.shape == (8, 3)
    assert (made.timeline.events.end_s <= 7.5).all()
    assert made.condition.verdict in condition.CONDITIONS and made.condition.about == SIMULATED
    assert made.segment.level_db.shape == made.segment.activation.shape == model.single.features.shape
    assert made.segment.activation.min() >= 0
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    assert len(dict.fromkeys(stage for _, stage in told)) == 5


def test_the_answer_is_that_of_predict(model, tmp_path):
    from instrlib.models.predict import predict_file

    path = write_tone(tmp_path / "tone.wav", duration_s=4)
    np.testing.assert_array_equal(
        analysis.analyse(path, model).prediction.probabilities, predict_file(path, model).probabilities
    )


def test_a_model_without_timeline_and_condition_leaves_them_out(model, tmp_path):
    about = {name: value for name, value in model.about.items() if name != "timeline"}
    bare = dataclasses.replace(model, condition=None, about=about)
    made = analysis.analyse(write_tone(tmp_path / "tone.wav", duration_s=4), bare)
    assert made.timeline is None and made.condition is None
    assert json.loads(analysis.to_json(made))["timeline"] is None
    assert "Timeline</h3>" not in page.result_page(made)


def test_what_is_too_long_is_refused_with_a_way_out(model, tmp_path):
    path = write_tone(tmp_path / "long.wav", duration_s=601, sample_rate_hz=1000)
    with pytest.raises(AudioError, match="instrlib predict"):
        analysis.analyse(path, model)


def test_too_many_channels_are_refused(model, tmp_path):
    soundfile.write(tmp_path / "many.wav", np.full((8000, 33), 0.1), 8000)
    with pytest.raises(AudioError, match="33 channels"):
        analysis.analyse(tmp_path / "many.wav", model)


def test_channels_and_a_high_rate_take_no_more_memory(model, tmp_path, monkeypatch):
    """All channels of this file at its own rate are 184 MB."""
    path = tmp_path / "wide.wav"
    with soundfile.SoundFile(path, "w", 96_000, 8, subtype="PCM_U8") as file:
        for _ in range(60):
            file.write(np.random.default_rng(0).uniform(-0.5, 0.5, (96_000, 8)).astype(np.float32))
    monkeypatch.setattr(condition, "verdict", lambda signal, *_: ("healthy", {"healthy": 1.0}, {"n": len(signal)}))
    tracemalloc.start()
    found = analysis._condition(path, model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.measures["n"] == 60 * model.single.features.sample_rate_hz
    assert peak < 80e6


def test_of_a_truncated_file_every_event_lies_in_what_is_there(model, tmp_path):
    sound = tone(2, 0, 60.0, 22_050)
    soundfile.write(tmp_path / "cut.mp3", sound, 22_050)
    os.truncate(tmp_path / "cut.mp3", (tmp_path / "cut.mp3").stat().st_size // 3)
    everyone = model.about["timeline"] | {"on": 0.0, "off": 0.0}
    eager = dataclasses.replace(model, about=model.about | {"timeline": everyone})
    made = analysis.analyse(tmp_path / "cut.mp3", eager)
    events = made.timeline.events
    assert 10 < made.duration_s < 25 and len(events)
    assert (events.start_s < events.end_s).all() and (events.end_s <= made.duration_s).all()
    assert len(made.timeline.scores) == math.ceil(made.duration_s)


def test_every_field_of_the_json_is_explained_and_every_explained_field_is_there():
    written = json.loads(analysis.to_json(made_up_analysis()))
    assert fields(written) - {"fields"} == set(written["fields"])
    assert written["condition"]["measures"]["inharmonicity"] is None
    assert written["answer"] == "piano"
    assert sum(written["probabilities"].values()) == pytest.approx(1)
    assert json.loads(analysis.to_json(made_up_analysis(named=False)))["answer"] is None


def test_the_example_is_a_tune_made_on_the_spot(tmp_path):
    first = analysis.example_clip(tmp_path)
    signal = load(first, sample_rate_hz=22_050)
    assert 5 < len(signal) / 22_050 < 12 and 0.5 < np.abs(signal).max() < 0.9
    (tmp_path / "again").mkdir()
    assert analysis.example_clip(tmp_path / "again").read_bytes() == first.read_bytes()


def test_without_a_synthesiser_the_example_is_made_of_sine_waves(tmp_path, monkeypatch):
    def none() -> str:
        raise CorpusError("no synthesiser")

    monkeypatch.setattr(sampler, "engine_name", none)
    signal, rate_hz = soundfile.read(analysis.example_clip(tmp_path))
    loudest = np.fft.rfftfreq(rate_hz // 2, 1 / rate_hz)[
        np.abs(np.fft.rfft(signal[: rate_hz // 4], rate_hz // 2)).argmax()
    ]
    assert loudest == pytest.approx(330, abs=3)  # the E above middle C, with which it begins


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_a_result_holds_its_figures_and_downloads_and_asks_for_nothing():
    html = page.result_page(made_up_analysis())
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', html)
    assert "http" not in re.sub(r'"data:[^"]*"', "", html)
    kinds = re.findall(r'href="data:([\w/]+);base64,([^"]*)"', html)
    content = {kind: base64.b64decode(text) for kind, text in kinds}
    assert content["application/pdf"].startswith(b"%PDF-")
    assert json.loads(content["application/json"])["answer"] == "piano"


def test_every_picture_says_what_it_shows():
    pictures = re.findall(r"<img [^>]*>", page.result_page(made_up_analysis()))
    assert len(pictures) == 2
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)


@pytest.mark.parametrize(
    "name", ['<img src=x onerror="alert(1)">.wav', "${alert(1)}.wav", "{{value}}.wav", '" onload="x.wav']
)
def test_a_name_stands_in_the_page_as_text(name):
    html = page.result_page(made_up_analysis(name=name))
    assert name not in html
    assert "<img src=x" not in html and "${" not in html and "{{" not in html and '" onload' not in html


# -- what is served ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(page_folder):
    with page.opened(page_folder) as address:
        yield address


def call(address: str, data: list, *, function: int = 0, session: str = "test") -> requests.Response:
    body = {"data": data, "fn_index": function, "session_hash": session, "event_data": None, "trigger_id": 1}
    return requests.post(f"{address}gradio_api/queue/join", json=body, timeout=20)


def ended(address: str, session: str) -> dict:
    """Return what the server says when a call has ended."""
    where = f"{address}gradio_api/queue/data"
    with requests.get(where, params={"session_hash": session}, stream=True, timeout=20) as answer:
        for line in answer.iter_lines():
            said = json.loads(line.removeprefix(b"data:") or b"{}")
            if said.get("msg") == "process_completed":
                return said
    raise AssertionError("it never ended")


def test_it_is_served_on_this_machine_alone(address):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    assert requests.get(address, timeout=20).status_code == 200
    host = socket.gethostbyname(socket.gethostname())
    if not host.startswith("127."):
        with pytest.raises(requests.ConnectionError):
            requests.get(address.replace("127.0.0.1", host), timeout=5)


def test_another_name_for_this_machine_is_refused(address):
    """A foreign page could otherwise reach it by a name that it lets point here."""
    assert requests.get(address, headers={"Host": "evil.example"}, timeout=20).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "docs", "openapi.json", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/runs", "monitoring/summary",
        "gradio_api/proxy=http://example.org/", "gradio_api/file=http://example.org/x.wav", "gradio_api/call/listen",
    ],
)  # fmt: skip
def test_documentation_proxies_and_statistics_are_not_served(address, path):
    assert requests.get(address + path, timeout=20).status_code == 404


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "/../etc/passwd"])
def test_files_of_this_machine_are_not_served(address, path):
    assert requests.get(f"{address}gradio_api/file={path}", timeout=20).status_code in (403, 404)


def test_a_recording_that_is_an_address_or_a_file_of_this_machine_is_not_read(address):
    elsewhere = {"path": "http://example.org/x.wav", "meta": {"_type": "gradio.FileData"}}
    assert call(address, [elsewhere]).status_code == 403
    assert requests.post(f"{address}gradio_api/queue/join", data="{", timeout=20).status_code == 403


@pytest.mark.parametrize("function", [1, 2])
def test_a_file_of_this_machine_that_was_not_uploaded_is_not_analysed(address, function, tmp_path):
    for path in ("/etc/passwd", str(write_tone(tmp_path / "mine.wav", duration_s=3))):
        recording = {"path": path, "meta": {"_type": "gradio.FileData"}}
        session = f"{function}{path}"
        assert call(address, [recording], function=function, session=session).status_code == 200
        said = ended(address, session)
        assert said["success"] is False
        assert "root:" not in json.dumps(said) and "data:" not in json.dumps(said)
    assert (tmp_path / "mine.wav").exists()


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null"])
def test_what_another_sites_page_sends_is_refused(address, origin):
    for path in ("", "gradio_api/upload", "gradio_api/queue/join"):
        answer = requests.post(address + path, headers={"Origin": origin}, files={"files": ("a.wav", b"1")}, timeout=20)
        assert answer.status_code == 403
    assert requests.get(address, headers={"Origin": address.rstrip("/")}, timeout=20).status_code == 200


def test_a_file_that_is_too_large_is_refused_by_the_server(address, monkeypatch):
    import gradio

    # One that another test has closed may have had the same port.
    for served in gradio.Blocks.get_instances():
        if served.local_url == address:
            monkeypatch.setattr(served, "max_file_size", 1000)
    answer = requests.post(f"{address}gradio_api/upload", files={"files": ("big.wav", bytes(5000))}, timeout=20)
    assert answer.status_code == 413


def test_a_taken_port_and_a_missing_model_are_told_in_a_sentence(address, page_folder, tmp_path):
    port = int(address.rstrip("/").rpartition(":")[2])
    with (
        pytest.raises(ConfigError, match=rf"Port {port} is taken; choose another with --port\."),
        page.opened(page_folder, port=port),
    ):
        pass
    with pytest.raises(RunError, match="not a model folder"), page.opened(tmp_path):
        pass


def test_it_leaves_the_environment_as_it_was_and_no_file_behind(page_folder, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/nowhere")
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    with page.opened(page_folder):
        uploads = os.environ["GRADIO_TEMP_DIR"]
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and "127.0.0.1" in os.environ["NO_PROXY"]
        assert Path(uploads).stat().st_mode & 0o077 == 0
    assert os.environ["GRADIO_TEMP_DIR"] == "/nowhere" and "GRADIO_ANALYTICS_ENABLED" not in os.environ
    assert not Path(uploads).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_the_command_ends_without_a_word_and_without_a_file_when_told_to(page_folder, tmp_path, name):
    command = [sys.executable, "-m", "instrlib.runner.cli", "demo", "--model", str(page_folder)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(heeding(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert b"Getting" in process.stdout.readline() and b"http://127.0.0.1:" in process.stdout.readline()
        assert list(tmp_path.glob("instrlib-page-*"))
        process.send_signal(getattr(signal, name))
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
    assert not list(tmp_path.glob("instrlib-page-*"))


# -- uploads -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def upload(tmp_path) -> Path:
    path = tmp_path / "uploads" / "0123" / "a.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    return path


@pytest.fixture
def uploads(upload):
    return page._Uploads(upload.parent.parent)


def test_an_upload_is_kept_until_the_last_page_that_waits_for_it_has_heard_it(upload, uploads):
    uploads.wait("first", upload)
    uploads.wait("second", upload)
    with uploads.heard("first", upload):
        pass
    assert upload.exists()
    with uploads.heard("second", upload):
        uploads.wait("second", upload)  # given once more, before it was done
    assert upload.exists()
    with uploads.heard("second", upload):
        assert upload.exists()
    assert not upload.parent.exists() and uploads.folder.exists()


def test_what_was_given_and_passed_over_is_removed_with_the_one_that_was_heard_instead(upload, uploads):
    last, later = (upload.with_name(name) for name in ("b.wav", "c.wav"))
    for path in (upload, last, later):
        path.write_bytes(b"1")
        uploads.wait("first", path)
    with uploads.heard("first", last):
        assert last.exists() and not upload.exists()
    assert not last.exists() and later.exists(), "what was given later is still to be heard"


def test_what_lies_elsewhere_is_left_alone(uploads, tmp_path):
    path = tmp_path / "mine.wav"
    path.write_bytes(b"1")
    uploads.wait("first", path)
    with uploads.heard("first", path):
        pass
    assert path.exists()


def test_what_was_broken_off_is_swept_away_by_its_age_and_what_is_heard_or_new_is_not(upload, uploads, monkeypatch):
    broken_off, new = uploads.folder / "tmp1", uploads.folder / "tmp2"
    for path in (broken_off, new):
        path.write_bytes(b"1")
    for path in (broken_off, upload):
        os.utime(path, (0, 0))
    monkeypatch.setattr(page, "_SWEEP_EVERY_S", 0.01)
    with uploads.heard("first", upload), uploads.swept():
        for _ in range(500):
            if not broken_off.exists():
                break
            time.sleep(0.01)
    assert not broken_off.exists() and new.exists()
    assert not upload.exists(), "it was heard"
    uploads.wait("first", upload)
    upload.parent.mkdir()
    upload.write_bytes(b"1")
    os.utime(upload, (0, 0))
    uploads.sweep()
    assert upload.exists(), "a queued upload is kept, however old"
    with uploads.heard("first", upload):
        uploads.sweep()
        assert upload.exists()
