"""Audio players in a notebook, and the web page for your own recordings, served by Gradio on this machine.

The server accepts connections from 127.0.0.1 only and contacts no other host. Uploads are removed after the analysis.
Results are embedded in the page, so that no other user can fetch them from the server.
"""

import base64
import contextlib
import html
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from IPython.display import HTML
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from instrlib.audio.decode import load
from instrlib.core.io import ConfigError, CorpusError, InstrlibError, spaced
from instrlib.data.corpora import Corpus
from instrlib.deploy.analysis import MAX_DURATION_S, Analysis, analyse, content, drawn, example_clip, pdf, to_json
from instrlib.models.published import PublishedModel, open_model
from instrlib.reporting.summary import TEMPLATES, filled

PLAYER_RATE_HZ, MAX_PLAYER_S = 22_050, 3.0

HOST = "127.0.0.1"
MAX_MB = 200
"""Ten minutes of stereo at CD quality have 106 MB."""

_TITLE = "Which instrument is it?"
_INTRO = """<div class="intro"><h1>{}</h1><p>Upload a recording to see its instrument, a timeline, a saliency map
and the condition of the instrument. It stays on this machine and is removed after the analysis. An example is shown
below.</p><p class="model">Model: {}. {}</p></div>"""
_HINT = f"""<p class="hint">wav, flac, ogg or mp3, up to {MAX_DURATION_S / 60:.0f} minutes and {MAX_MB} MB;
or use the microphone.</p>"""
_ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_ALLOWED_PATHS": "", "HF_HUB_OFFLINE": "1"}
_SERVED = (
    *("/assets/", "/static/", "/theme.css", "/favicon.ico", "/manifest.json", "/config"),
    *(f"/gradio_api/{name}" for name in ("upload", "queue/", "heartbeat/", "startup-events", "file=/")),
)


def show(
    captions: pd.DataFrame, signals: Mapping[str, Sequence[np.ndarray]], sample_rate_hz: int = PLAYER_RATE_HZ
) -> HTML:
    """Return a table with one row per sound: the captions, then the columns of players by name."""
    rows = captions.rename(columns=spaced).astype(str).map(html.escape)
    for name, column in signals.items():
        sounds = [_embedded("audio/mpeg", _mp3(signal, sample_rate_hz)) for signal in column]
        rows[name] = [f'<audio controls preload="none" src="{one}"></audio>' for one in sounds]
    with pd.option_context("display.max_colwidth", None):
        return HTML(rows.to_html(index=False, escape=False, border=0))


def players(corpus: Corpus, clips: pd.DataFrame, *, caption: list[str]) -> HTML:
    """Return players of the first `MAX_PLAYER_S` of clips (rows with `path`, `start_s`) with columns as `caption`."""
    signals = [
        load(corpus.root / clip.path, sample_rate_hz=PLAYER_RATE_HZ, start_s=clip.start_s, duration_s=MAX_PLAYER_S)
        for clip in clips.itertuples()
    ]
    return show(clips[caption], {"listen": signals})


def _mp3(signal: np.ndarray, sample_rate_hz: int) -> bytes:
    sound = io.BytesIO()
    soundfile.write(sound, signal, sample_rate_hz, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.6)
    return sound.getvalue()


def _embedded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@contextlib.contextmanager
def opened(folder: Path | None = None, *, port: int | None = None) -> Iterator[str]:
    """Serve the page while the block runs and yield its address; by default on the first free port from 7860.

    Variables of the environment that Gradio reads remain set. For the default of `folder` see `published.open_model`.
    """
    model = open_model(folder)
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST, "localhost"]))
    with TemporaryDirectory(prefix="instrlib-page-") as root:
        uploads = Path(root).resolve() / "uploads"
        uploads.mkdir(mode=0o700)
        guards = [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(_guarded)]
        quiet = {"inline": False, "quiet": True, "footer_links": [], "run_history": False}
        theme = {"primary_hue": "blue", "font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        os.environ |= _ENVIRONMENT | {"GRADIO_TEMP_DIR": str(uploads), "NO_PROXY": no_proxy, "no_proxy": no_proxy}
        import gradio  # it reads these variables

        page = _page(model, uploads)
        try:
            _, address, _ = page.launch(
                server_name=HOST,
                server_port=port,
                prevent_thread_lock=True,
                max_file_size=MAX_MB * 1_000_000,
                state_session_capacity=50,
                app_kwargs={"middleware": guards},
                theme=gradio.themes.Default(**theme),
                **quiet,
                css=(TEMPLATES / "demo.css").read_text(encoding="utf-8"),
            )
        except OSError as error:
            raise ConfigError(f"The page cannot be served: {error} See --port for another port.") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(folder: Path | None, *, port: int | None, on_ready: Callable[[str], None]) -> None:
    """Serve the page until the process ends; `on_ready` receives the address."""
    for name in ("SIGTERM", "SIGHUP"):  # SIGHUP, sent when a terminal is closed, does not exist on Windows
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # set by nohup
            signal.signal(number, signal.default_int_handler)  # like Ctrl-C, so that uploads are removed
    with contextlib.suppress(KeyboardInterrupt), opened(folder, port=port) as address:
        on_ready(address)
        threading.Event().wait()


def result_page(analysis: Analysis, *, sound: bytes | None = None) -> str:
    """Return an analysis as HTML with figures and downloads; `sound` is an mp3 for a player. File names are escaped."""
    figures = drawn(analysis)
    files = {"pdf": pdf(analysis, figures), "json": to_json(analysis).encode()}
    values = content(analysis) | {
        "stem": Path(analysis.name).stem,
        "sound": sound and _embedded("audio/mpeg", sound),
        "images": {name: _embedded("image/svg+xml", figure.encode()) for name, figure in figures.items()},
        "files": {kind: _embedded(f"application/{kind}", file) for kind, file in files.items()},
    }
    # Gradio would replace these brackets in a file name.
    return filled("analysis.html", values, autoescape=True).replace("${", "&#36;{").replace("{{", "&#123;{")


def _page(model: PublishedModel, uploads: Path) -> Any:
    """Return the page as `gradio.Blocks`."""
    import gradio

    progress = gradio.Progress()
    waiting = Waiting(uploads)

    def receive(recording: str | None, request: gradio.Request) -> tuple[str, str]:
        waiting.replace(request.session_hash, recording)
        return "", ""

    def answer(request: gradio.Request, progress: Any = progress) -> tuple[Any, Any]:
        with waiting.taken(request.session_hash) as path:
            if path is None:
                return gradio.skip(), gradio.skip()
            try:
                analysis = analyse(path, model, on_progress=lambda share, stage: progress(0.9 * share, desc=stage))
                progress(0.9, desc="Drawing figures and PDF")
                return "", result_page(analysis)
            except InstrlibError as error:
                message = html.escape(str(error).replace(str(path), path.name))
                return f'<p class="error" role="alert">{message}</p>', ""

    def forget(request: gradio.Request) -> None:
        waiting.replace(request.session_hash, None)

    async def given(path: str) -> str:
        return path

    first = ""
    with contextlib.suppress(CorpusError):  # no synthesiser
        path = example_clip(uploads)
        example = replace(analyse(path, model), name="Example: phrases of a sampled violin")
        first = result_page(example, sound=_mp3(load(path, sample_rate_hz=PLAYER_RATE_HZ), PLAYER_RATE_HZ))
        path.unlink()
    # Gradio looks every 60 s for uploads that are older than 900 s, because they got no analysis.
    with gradio.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(60, 900)) as page:
        gradio.HTML(_INTRO.format(_TITLE, *map(html.escape, (model.name, model.performance))))
        look = {"editable": False, "buttons": [], "label": "Recording", "elem_id": "recording"}
        recording = gradio.Audio(sources=["upload", "microphone"], type="filepath", **look)
        recording.async_move_resource_to_block_cache = given  # Gradio's own would fetch addresses
        gradio.HTML(_HINT)
        status = gradio.HTML(elem_id="status")
        result = gradio.HTML(first, elem_id="result")
        # A recording that is given during an analysis waits; the last one is never lost.
        settings = {"outputs": [status, result], "api_visibility": "private", "trigger_mode": "always_last"}
        # The last result is removed first, so that the progress is shown in its place.
        received = {"fn": receive, "inputs": recording, "show_progress": "hidden", **settings}
        recording.clear(**received)
        gradio.on([recording.upload, recording.stop_recording], **received).then(
            answer, None, show_progress_on=status, concurrency_limit=2, **settings
        )
        page.unload(forget)
    return page.queue(api_open=False, max_size=20)


def _guarded(app: Any) -> Any:
    """Serve only the page, and only what it requests; Gradio also has a proxy, and obeys forms of other sites."""

    async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> None:
        answer = app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if headers.get("origin") not in (None, f"http://{headers.get('host')}"):
                answer = PlainTextResponse("Only requests of this page are accepted.", 403)
            elif scope["path"] != "/" and not scope["path"].startswith(_SERVED):
                answer = PlainTextResponse("Not served here.", 404)
        await answer(scope, receive, send)

    return guarded


class Waiting:
    """The recording of each page that waits for its analysis, as a hard link to the upload.

    Gradio keeps equal uploads of two users as one file; with links of their own, neither removes the other's.
    """

    def __init__(self, uploads: Path) -> None:
        self.uploads = uploads
        self.held: dict[str | None, tuple[Path, Path]] = {}  # link and upload of each page

    def replace(self, page: str | None, recording: str | None) -> None:
        """Let a recording wait in place of an earlier one of this page; `ValueError` if it is no upload."""
        if recording is not None:
            upload = Path(recording).resolve()
            upload.relative_to(self.uploads)
            link = Path(mkdtemp(dir=self.uploads.parent)) / upload.name
            link.hardlink_to(upload)
        earlier = self.held.pop(page, None)
        if recording is not None:
            self.held[page] = link, upload
        if earlier is not None:
            shutil.rmtree(earlier[0].parent)

    @contextlib.contextmanager
    def taken(self, page: str | None) -> Iterator[Path | None]:
        """Yield the recording of a page, or None without one; remove it and its upload afterwards."""
        link, upload = self.held.pop(page, (None, None))
        try:
            yield link
        finally:
            if link is not None:
                with contextlib.suppress(FileNotFoundError):
                    if upload.samefile(link):  # not if another user has just given the same recording again
                        upload.unlink()
                shutil.rmtree(link.parent)
