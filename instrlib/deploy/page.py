"""The web page for your own recordings, served by Gradio on this machine.

The server accepts connections from 127.0.0.1 only and contacts no other host. Uploads are removed after the analysis.
Results are embedded in the page, so that no other user can fetch them from the server.
"""

import base64
import contextlib
import html
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

from instrlib.audio.decode import load
from instrlib.core.io import ConfigError, CorpusError, InstrlibError, hash_json
from instrlib.deploy.analysis import MAX_DURATION_S, Analysis, analyse, content, drawn, example_clip, pdf, to_json
from instrlib.deploy.players import PLAYER_RATE_HZ, mp3
from instrlib.models.published import PublishedModel, open_model
from instrlib.reporting.summary import TEMPLATES, filled

if TYPE_CHECKING:
    import gradio

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
        os.environ |= _ENVIRONMENT | {"GRADIO_TEMP_DIR": str(uploads), "NO_PROXY": no_proxy, "no_proxy": no_proxy}
        page = _page(model, uploads)
        try:
            address = _launch(page, port)
        except OSError as error:
            if port is not None and "empty port" in str(error):
                raise ConfigError(f"Port {port} is in use; choose another one with --port.") from error
            raise ConfigError(f"The page cannot be served: {error}") from error
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

    def embedded(kind: str, content: bytes) -> str:
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"

    figures = drawn(analysis)
    written = {"pdf": pdf(analysis, figures), "json": to_json(analysis).encode()}
    values = content(analysis) | {
        "stem": Path(analysis.name).stem,
        "sound": sound and embedded("audio/mpeg", sound),
        "images": {name: embedded("image/svg+xml", figure.encode()) for name, figure in figures.items()},
        "files": {kind: embedded(f"application/{kind}", file) for kind, file in written.items()},
    }
    page = filled("analysis.html", values, autoescape=True)
    # Gradio would replace these brackets in a file name.
    return page.replace("${", "&#36;{").replace("{{", "&#123;{")


def _page(model: PublishedModel, uploads: Path) -> "gradio.Blocks":
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
        first = result_page(example, sound=mp3(load(path, sample_rate_hz=PLAYER_RATE_HZ), PLAYER_RATE_HZ))
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


def _launch(page: "gradio.Blocks", port: int | None) -> str:
    """Start the server in a thread and return its address."""
    import gradio
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(_guarded)]
    theme = {"primary_hue": "blue", "font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    _, address, _ = page.launch(
        server_name=HOST,
        server_port=port,
        inline=False,
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=MAX_MB * 1_000_000,
        state_session_capacity=50,
        footer_links=[],
        run_history=False,
        app_kwargs={"middleware": guards},
        theme=gradio.themes.Default(**theme),
        css=(TEMPLATES / "demo.css").read_text(encoding="utf-8"),
    )
    return address


def _guarded(app: Any) -> Any:
    """Serve only the page, and only what it requests; Gradio also has a proxy, and obeys forms of other sites."""
    from starlette.datastructures import Headers
    from starlette.responses import PlainTextResponse

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
        self.uploads, self.root = uploads, Path(mkdtemp(dir=uploads.parent))

    def replace(self, page: str | None, recording: str | None) -> None:
        """Let a recording wait in place of an earlier one of this page; `ValueError` if it is no upload."""
        held = self.root / hash_json(page)
        if recording is None:
            shutil.rmtree(held, ignore_errors=True)
            return
        path, new = Path(recording).resolve(), Path(mkdtemp(dir=self.root))
        link = new / path.relative_to(self.uploads)
        link.parent.mkdir()
        link.hardlink_to(path)
        shutil.rmtree(held, ignore_errors=True)
        new.rename(held)

    @contextlib.contextmanager
    def taken(self, page: str | None) -> Iterator[Path | None]:
        """Yield the recording of a page, or None without one; remove it and its upload afterwards."""
        with TemporaryDirectory(dir=self.root) as work:
            try:
                held = (self.root / hash_json(page)).rename(Path(work) / "held")
            except FileNotFoundError:
                yield None
                return
            (path,) = held.glob("*/*")
            try:
                yield path
            finally:
                upload = self.uploads / path.relative_to(held)
                with contextlib.suppress(FileNotFoundError):
                    if upload.samefile(path):  # not if another user has just given the same recording again
                        upload.unlink()
