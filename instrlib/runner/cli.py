"""The command `instrlib`. Each command imports what it needs when it runs, so that `--help` starts fast."""

import csv
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from instrlib.core.io import ConfigError, InstrlibError

_INTERRUPTED = 130  # the shell's exit code after Ctrl-C


class _Commands(TyperGroup):
    """Reports errors that a user can cause as one line on stderr, with exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # file names may contain characters that the terminal lacks
        try:
            return super().invoke(ctx)
        except InstrlibError as error:
            _fail(error)
        except BrokenPipeError:
            raise
        except OSError as error:
            _fail(f"{error.strerror or error}: {error.filename}" if error.filename else error)
        except KeyboardInterrupt:
            if ctx.invoked_subcommand in ("study", "download"):
                _fail("interrupted; run the same command again to continue.")
            _fail("interrupted.", code=_INTERRUPTED)


main = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A reproducible study of musical instrument recognition, from raw audio to its report.",
    epilog="Start with: instrlib study",
)

Corpus = Annotated[str, typer.Option(help="Name of the corpus; see: instrlib corpora", metavar="NAME")]
Data = Annotated[str, typer.Option(help="Folder of the corpus. Default: data/<corpus>.", metavar="FOLDER")]
Profile = Annotated[str, typer.Option(help="Size of the study: smoke, quick or full.", metavar="NAME")]
Seeds = Annotated[int, typer.Option(min=1, metavar="N", help="Number of seeds of each network.")]
Only = Annotated[list[str] | None, typer.Option(help="Run only this notebook; can be repeated.", metavar="NOTEBOOK")]
Study = Annotated[str, typer.Argument(help="Name of the study, such as rendered-quick.", metavar="STUDY")]
Local = Annotated[bool, typer.Option("--local", help="Use the study in runs/ instead of the published one.")]
Recordings = Annotated[
    list[Path], typer.Argument(help="wav, flac, ogg or mp3 files of any length, or folders of them.", metavar="FILE...")
]
Model = Annotated[str, typer.Option(help="Model folder. Default: the published model.", metavar="FOLDER")]
Top = Annotated[int, typer.Option(min=1, metavar="N", help="Number of classes to show.")]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, metavar="N", envvar="INSTRLIB_DEMO_PORT", help="Default: the first free one."),
]
Compared = Annotated[
    tuple[str, str] | None,
    typer.Option("--compare", metavar="STUDY STUDY", help="Compare names, folders, or NAME@REVISION of git."),
]
Name = Annotated[str, typer.Argument(help="Name of the corpus; see: instrlib corpora", metavar="NAME")]


def _command(*examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command with examples of its use."""
    return main.command(epilog="\n\n".join(["Examples:", *(f"instrlib {line}" for line in examples)]))


@_command("study", "study --profile full --seeds 5", "study --corpus fsdkaggle2018 --data ~/sound/FSDKaggle2018")
def study(
    corpus: Corpus = "rendered", data: Data = "", profile: Profile = "quick", seeds: Seeds = 3, only: Only = None
) -> None:
    """Run the notebooks in order, each only if something has changed; results are written to runs/."""
    from instrlib.reporting.compare import agreement
    from instrlib.reporting.summary import open_study
    from instrlib.runner.study import run_study, write_reports

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the kernel, as Ctrl-C does
    say = partial(typer.echo, err=True)
    run_study(corpus=corpus, data=data, profile=profile, seeds=seeds, notebooks=only, say=say)
    if not only:
        folder, published = (_results(corpus, profile, data, local=local) for local in (True, False))
        write_reports(folder, only_new=True)
        typer.echo(f"Results, figures, report and model: {_near(folder)}")
        if (published / "results.json").is_file():
            typer.echo(agreement(open_study(folder), open_study(published)))


@_command("status")
def status() -> None:
    """Show the state of every notebook in every local study, and the commits of the published studies."""
    from instrlib.core.config import folders
    from instrlib.reporting.summary import open_study
    from instrlib.runner import study as runs

    if rows := runs.status():
        _table(runs.State._fields, rows)
    else:
        typer.echo("No local study; start with: instrlib study")
    published = []
    for path in sorted(folders().reports.glob("[!.]*/results.json")):
        try:
            one = open_study(path)
            published.append((path.parent.name, one.commits(), str(len(one.notebooks))))
        except InstrlibError as error:
            _say_error(error)
    if published:
        _table(("published study", "commit", "notebooks"), published)


@_command("publish rendered-quick")
def publish(study: Study) -> None:
    """Copy a finished study from runs/ to reports/ and figures/, and to the notebooks if they show this study."""
    from instrlib.core.config import folders
    from instrlib.core.io import write_text
    from instrlib.reporting.cards import renewed
    from instrlib.runner import study as runs

    runs.write_reports(folders().runs.absolute() / study)
    written = runs.publish(study)
    if any(path.suffix == ".ipynb" for path in written):
        readme = folders().notebooks.parent / "README.md"
        write_text(readme, renewed(readme.read_text(encoding="utf-8")))
    for path in written:
        typer.echo(f"{_near(path)}: up to date")


@_command("predict recording.wav", "predict *.mp3 --top 5 --csv", "predict recordings/ --json")
def predict(
    files: Recordings,
    model: Model = "",
    top: Top = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV.")] = False,
) -> None:
    """Classify the instrument of recordings; the exit code is 1 if a file cannot be used."""
    from tqdm import tqdm

    from instrlib.core.io import AudioError
    from instrlib.models.published import open_model, predict_file, recordings

    if as_json and as_csv:
        raise ConfigError("Give --json or --csv, not both.")
    published = open_model(Path(model) if model else None)
    typer.echo(f"Model: {published.name} in {_near(published.folder)}\n{published.performance}", err=True)
    predicted, n_bad, interrupted = [], 0, False
    paths = recordings(files)
    with tqdm(total=len(paths), leave=False, disable=None, bar_format="{l_bar}{bar}") as bar:
        for number, path in enumerate(paths):
            try:
                if isinstance(path, AudioError):
                    raise path
                advance = lambda share, number=number: bar.update(number + share - bar.n)  # noqa: E731
                predicted.append(predict_file(path, published, on_progress=advance))
            except AudioError as error:
                n_bad += 1
                _say_error(error)
            except KeyboardInterrupt:
                interrupted = True
                break
    _show_predictions(predicted, published.name, top=top, as_json=as_json, as_csv=as_csv)
    if interrupted:
        _fail(f"interrupted; {len(predicted)} of {len(paths)} files were predicted.", code=_INTERRUPTED)
    if n_bad:
        raise typer.Exit(1)


@_command("demo", "demo --port 8000")
def demo(model: Model = "", port: Port = None) -> None:
    """Serve a web page for your own recordings on this machine; it cannot be reached from other machines."""
    typer.echo("Starting the page; this takes a few seconds.")
    from instrlib.deploy.page import serve

    ready = "Open {} in a browser; Ctrl-C ends it.".format
    serve(Path(model) if model else None, port=port, on_ready=lambda address: typer.echo(ready(address)))


@_command("corpora")
def corpora() -> None:
    """List the corpora: name, labels per clip, licence, size, and what is on disk."""
    from instrlib.data import corpora

    rows = []
    for info in map(corpora.info, corpora.NAMES):
        labels = "several" if info.multilabel else "one"
        rows.append((info.name, info.title, labels, info.licence, info.size, corpora.on_disk(info.name)))
    _table(("name", "title", "labels a clip", "licence", "size", "on disk"), rows)


@_command("download fsdkaggle2018", "download fsdkaggle2018 --data /mnt/audio/fsd")
def download(name: Name, data: Data = "") -> None:
    """Download a corpus from its publisher; an interrupted download is resumed."""
    from instrlib.data import corpora

    info = corpora.info(name)
    for what in (info.title, f"Licence: {info.licence}", f"Cite as: {info.citation}", f"Size: {info.size}"):
        typer.echo(what)
    corpora.download(name, data)
    typer.echo(f"{name}: {corpora.on_disk(name, data)}")


@_command("validate fsdkaggle2018", "validate folder --data ~/my-instruments")
def validate(name: Name, data: Data = "") -> None:
    """Check a corpus on disk; the exit code is 1 if something is wrong."""
    from instrlib.data import corpora

    wrong = corpora.validate(name, data)
    for line in wrong:
        typer.echo(line)
    if wrong:
        raise typer.Exit(1)
    typer.echo(f"{name}: nothing wrong; {corpora.on_disk(name, data)}")


@_command("figures", "figures --corpus fsdkaggle2018 --local")
def figures(corpus: Corpus = "rendered", data: Data = "", profile: Profile = "quick", local: Local = False) -> None:
    """Redraw the figures of a study from its stored arrays; nothing is trained."""
    from instrlib.reporting.summary import open_study
    from instrlib.runner.study import redraw

    found = open_study(_results(corpus, profile, data, local=local))
    drawn = redraw(found.folder / "arrays", found.figures)
    typer.echo(f"{sum(drawn)} of {len(drawn)} figures drawn in {_near(found.figures)}")
    if not all(drawn):
        typer.echo("The others were made by another version and are left as they are.")


@_command(
    "report",
    "report --corpus fsdkaggle2018 --local",
    "report --compare rendered-quick runs/rendered-quick",
    "report --compare rendered-quick@v1.0 rendered-quick",
)
def report(
    corpus: Corpus = "rendered",
    data: Data = "",
    profile: Profile = "quick",
    local: Local = False,
    compare: Compared = None,
) -> None:
    """Write the report and the cards of a study from its stored results, or compare two studies."""
    if compare:
        from instrlib.reporting import compare as comparing
        from instrlib.reporting.summary import open_study

        one, other = map(open_study, compare)
        for header, rows in comparing.compare(one, other).values():
            if rows:
                _table(header, rows)
        typer.echo(comparing.agreement(one, other))
        return
    from instrlib.runner.study import write_reports

    for path in write_reports(_results(corpus, profile, data, local=local)):
        typer.echo(_near(path))


def _results(corpus: str, profile: str, data: str, *, local: bool) -> Path:
    from instrlib.core.config import folders, study_name

    return (folders().runs if local else folders().reports).absolute() / study_name(corpus, profile, data)


def _show_predictions(predicted: Sequence[Any], model: str, *, top: int, as_json: bool, as_csv: bool) -> None:
    """Print predictions as a table, as JSON or as CSV."""
    records, rows = [], []
    for one in predicted:
        answer, best = (one.named[0] if one.named else None), one.top(top)
        named = [{"class": name, "probability": share} for name, share in best]
        file, seconds = os.fspath(one.path), round(one.duration_s, 3)
        records.append({"file": file, "duration_s": seconds, "answer": answer, "top": named, "model": model})
        if as_csv:
            shares = [value for name, share in best for value in (name, f"{share:.6f}")]
            rows.append([_printable(one.path), f"{seconds:.3f}", answer or "", *shares, model])
        else:
            length = f"{one.duration_s // 60:.0f}:{one.duration_s % 60:04.1f}"
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in best)
            rows.append((_printable(one.path), length, answer or "none of these", shares))
    if as_json:
        typer.echo(json.dumps(records, indent=2))  # in ASCII, because a file name need not be text
    elif as_csv:
        n_shown = min(top, max((len(one.classes) for one in predicted), default=top))
        columns = [f"{what}_{number}" for number in range(1, n_shown + 1) for what in ("class", "probability")]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["file", "duration_s", "answer", *columns, "model"], *rows])
        typer.echo(text.getvalue(), nl=False)
    elif rows:
        _table(("file", "min:s", "answer", "most probable"), rows)


def _printable(text: object) -> str:
    """Replace control characters, and bytes of a path that are not UTF-8."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def _say_error(message: object) -> None:
    """Print an error as one line on stderr."""
    typer.echo(f"Error: {_printable(' '.join(str(message).split()))}", err=True)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table in aligned columns in a terminal, and separated by tabs otherwise."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        aligned = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.echo(aligned if sys.stdout.isatty() else "\t".join(row))


def _near(path: Path) -> str:
    """Return a path relative to the working folder if it is in it."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


def _fail(message: object, *, code: int = 2) -> None:
    _say_error(message)
    raise typer.Exit(code) from None


if __name__ == "__main__":
    main()
