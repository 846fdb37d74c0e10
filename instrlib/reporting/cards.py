"""Cards for what a study uses and gives away: DATA_CARD.md and MODEL_CARD.md, made of its results, never typed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib.audio import effects
from instrlib.core.config import folders
from instrlib.core.errors import RunError
from instrlib.core.io import read_arrays, read_json, write_text
from instrlib.core.words import begin, spaced
from instrlib.data import corpora
from instrlib.data.rendered import sources as soundfont
from instrlib.evaluation.statistics import LEVEL
from instrlib.models.published import CARD, CONDITION, RECORD, read_sealed
from instrlib.runner.publish import arrays_folder, model_folder, results_path

DATA_CARD = "DATA_CARD.md"
CLIP_LIST = "clips.csv"

_COUNTS = "01_preprocessing"
_FEW_GROUPS = 10
_SYNTHESISED = "rendered"
_HELD_OUT = "held-out clips"  # what notebook 13 calls the test part of the model's own corpus


@dataclass(frozen=True)
class _Words:
    """What numbers cannot tell of a corpus."""

    what: str
    groups: str
    blind: str
    use: str
    limits: tuple[str, ...]
    n_whole: int | None = None  # clips of the whole release


_ABOUT = {
    "rendered": _Words(
        "Phrases and exercises of 3 s, played by a program from sampled instruments of soundfonts, in varied rooms, "
        "noise and levels. Nobody played them and no microphone heard them. All of it follows from one seed.",
        "one General MIDI program in one register, whichever soundfont plays it; of drums one kit, with straight or "
        "with swung grooves",
        "Neighbouring registers of a program can share samples at their border, and drum kits share cymbals.",
        "Learning how such a study is done, trying out methods without a download, pretraining.",
        (
            "A score here says little of real instruments, rooms and microphones; notebook 13 measures what is lost.",
            "Phrases are made by rules: they have neither style nor expression.",
        ),
    ),
    "fsdkaggle2018": _Words(
        "Sounds that many people uploaded to Freesound. People checked all labels of the test part and some of the "
        "training part.",
        "uploads of one class whose Freesound numbers lie near each other (steps of at most 100): most likely one "
        "person in one session",
        "The release names no uploader. Who came back later counts as another group, even with the same instrument.",
        "Research on real sounds of mixed quality, mostly single notes and short phrases.",
        (
            "Devices, rooms and lengths differ much, and some labels of the training part are wrong.",
            "In the whole release not every class is a musical instrument.",
        ),
        n_whole=11_073,
    ),
    "irmas": _Words(
        "Excerpts of 3 s from recordings of several genres, each labelled with its predominant instrument.",
        "one recording, by the number in the file's name",
        "Two recordings of one performer or one album count as two groups.",
        "Research on the predominant instrument in mixed music.",
        (
            "Other instruments play along and are not named.",
            "The licence allows no commercial use and no changed copies.",
        ),
        n_whole=9_579,
    ),
    "openmic2018": _Words(
        "Clips of 10 s from the Free Music Archive. For each clip some of 20 instruments were looked for, not all.",
        "one artist, or one clip where no artist is known",
        "An artist under another name, or as a guest, counts as another group.",
        "Research on several instruments at once, with labels that are partly missing.",
        (
            "An instrument that nobody looked for is neither present nor absent.",
            "Labels come from crowds and disagree.",
        ),
        n_whole=20_000,
    ),
    "nsynth": _Words(
        "Single notes of 4 s, each of one instrument at one pitch and velocity, at 16 kHz.",
        "one instrument: all of its notes come from one sample pack",
        "Instruments of one maker or one recording room count as different groups.",
        "Research on timbre and pitch of single notes.",
        ("No phrases, no chords, nothing above 8 kHz.", "Every note is held for 3 s, whatever the instrument."),
    ),
    "kaggle_instruments": _Words(
        "Recordings of guitar, drums, violin and piano that were put together from many sources, which are not named.",
        "files whose names differ in their numbers alone: one instrument, room, kit, player or series",
        "Files of one session under different names count as different groups.",
        "Exercises in class, and comparison with the many projects that use it.",
        (
            "Its tables have errors, which are put right here; see instrlib/corpora/kaggle_instruments.py.",
            "Nobody knows where its sounds come from, so neither what they stand for nor who owns them.",
        ),
    ),
    "folder": _Words(
        "Recordings of your own, one folder a class.",
        "what `groups.csv` names: a session, a performer or an instrument; a file that it does not name is a group "
        "of its own",
        "Without `groups.csv` nothing is known of sessions. If several files come from one, the scores flatter.",
        "The question that you recorded them for.",
        ("What they stand for, and who may use them, only you know.",),
    ),
}

_ABOUT_ANOTHER = _Words(
    "The clips that the corpus's own module finds; it was added to this library, which knows no more of it.",
    "what the module of the corpus says in its column `group`",
    "Whether that keeps apart all clips of one session, performer or instrument is not known here.",
    "The question that the corpus was put together for.",
    ("What its clips stand for, only those know who put it together.",),
)
"""Of a corpus that is not in `_ABOUT`."""


def write_data_card(study: str) -> Path:
    """Write `reports/<study>/DATA_CARD.md`: what the clips are, whose they are, and what they cannot tell.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    Path
        The card. Without results of notebook 01 it has no counts and says so.

    Raises
    ------
    RunError
        When the study has no results.
    """
    notebooks = _notebooks(study)
    first = notebooks.get(_COUNTS, {"metrics": {}, "manifest": {"inputs": {}}})
    parameters = next(iter(notebooks.values()))["manifest"]["parameters"]
    corpus, metrics = corpora.info(parameters["corpus"]), first["metrics"]
    classes = class_counts(study)
    few = [one["name"] for one in classes if one["n_groups"] < _FEW_GROUPS]
    card = _render(
        "data_card.md",
        study=study,
        corpus=corpus,
        words=_words(corpus.name),
        part=part_of_whole(corpus.name, notebooks),
        clip_list=CLIP_LIST if results_path(study).with_name(CLIP_LIST).is_file() else "",
        profile=parameters["profile"],
        folder=Path(parameters["data"]).name,
        fonts=[{"name": name, **vars(font)} for name, font in soundfont.FONTS.items() if name in corpus.licence],
        metrics=metrics,
        classes=classes,
        lengths=_lengths(study),
        few=begin(", ".join(few)) if few else "",
        few_groups=_FEW_GROUPS,
        n_tested=notebooks.get("02_baseline_cnn", {"metrics": {}})["metrics"].get("n_tested"),
        reasons=_reasons(metrics.get("unusable", [])),
        inputs=first["manifest"]["inputs"],
        commit=first["manifest"].get("commit"),
    )
    path = results_path(study).with_name(DATA_CARD)
    write_text(path, card)
    return path


def write_model_card(study: str) -> Path | None:
    """Write the card of the model that a study gives away once more, with all that the study found out after it.

    Parameters
    ----------
    study : str
        Name of the study.

    Returns
    -------
    Path or None
        The card; None where the study gives no model away.

    Raises
    ------
    RunError
        When the study has no results.
    RunError
        When the record of the model is cut or altered.
    """
    from instrlib.deploy.release import model_card

    notebooks, folder = _notebooks(study), model_folder(study)
    if not (folder / RECORD).is_file():
        return None
    record = read_sealed(folder / RECORD)
    about = record["about"]
    if part := part_of_whole(about["corpus"]["name"], notebooks):
        record |= {"about": about | {"corpus": about["corpus"] | {"title": part}}}
    condition = read_sealed(folder / CONDITION) if (folder / CONDITION).is_file() else None
    write_text(folder / CARD, model_card(record, condition=condition, shift=under_shift(record, notebooks)))
    return folder / CARD


def under_shift(record: dict[str, Any], notebooks: dict[str, Any]) -> dict[str, Any] | None:
    """Gather what notebook 13 found out about a model.

    Parameters
    ----------
    record : dict
        What its `model.json` holds.
    notebooks : dict
        What the study's `results.json` holds, by notebook.

    Returns
    -------
    dict or None
        `domains` (for each kind of sounds `what`, `n`, `n_groups`, `accuracy`, `trivial`, `too_sure`, `refused`),
        `real` (whether recordings are among them), `untouched` (accuracy before anything was made worse) and
        `degraded` (for each degradation `what`, `harm`: from where on it is shown, `worst`, `change`). None when
        notebook 13 has not run, or ran with another model.
    """
    from instrlib.studies.trials import JUDGE

    published = notebooks.get("11_timeline", {}).get("metrics", {}).get("published", {})
    found = notebooks.get("13_domain_shift", {}).get("metrics", {})
    if "in_domains" not in found or published.get("id") != record["about"]["id"]:
        return None
    own = record["about"]["corpus"]["name"]
    chosen_by = JUDGE if own == _SYNTHESISED else ""
    names = list(dict.fromkeys(one["domain"] for one in found["in_domains"]))
    recorded = [own != _SYNTHESISED if name == _HELD_OUT else _is_recorded(name) for name in names]
    return {
        "domains": [_domain(name, found["in_domains"], chosen_by=chosen_by) for name in names],
        "real": any(recorded),
        "untouched": found["curves"]["untouched"]["accuracy"],
        "degraded": [
            _degraded(name, [one for one in found["losses"] if one["degradation"] == name])
            for name in dict.fromkeys(one["degradation"] for one in found["losses"])
            if name in effects.DEGRADATIONS
        ],
    }


def what_clips_are(corpus: str) -> str:
    """Say in a sentence or two what the clips of a corpus are.

    Parameters
    ----------
    corpus : str
        One of `corpora.NAMES`.

    Examples
    --------
    >>> what_clips_are("folder")
    'Recordings of your own, one folder a class.'
    """
    return _words(corpus).what


def what_groups_are(corpus: str) -> str:
    """Say what a group of a corpus is: what must not cross a split.

    Parameters
    ----------
    corpus : str
        Name of the corpus.

    Examples
    --------
    >>> what_groups_are("irmas")
    "one recording, by the number in the file's name"
    """
    return _words(corpus).groups


def part_of_whole(corpus: str, notebooks: dict[str, Any]) -> str:
    """Say which part of a release a study has, lest its numbers be taken for those of the whole.

    Parameters
    ----------
    corpus : str
        Name of the corpus.
    notebooks : dict
        What the study's `results.json` holds, by notebook.

    Returns
    -------
    str
        "" where the study has all clips, they have not been counted, or a release has no fixed number of them.

    Examples
    --------
    >>> counted = {"01_preprocessing": {"metrics": {"n_clips": 221}}}
    >>> part_of_whole("fsdkaggle2018", counted)
    '221 of the 11,073 clips of FSDKaggle2018'
    >>> part_of_whole("folder", counted)
    ''
    """
    whole = _words(corpus).n_whole
    n_clips = notebooks.get(_COUNTS, {}).get("metrics", {}).get("n_clips")
    if not whole or not n_clips or n_clips >= whole:
        return ""
    return f"{n_clips:,} of the {whole:,} clips of {corpora.info(corpus).title}"


def write_clip_list(study: str) -> Path | None:
    """Write `reports/<study>/clips.csv`: which clips of a release a study of a part of it has, and their groups.

    Parameters
    ----------
    study : str
        Name of the study.

    Returns
    -------
    Path or None
        The list. One that is there already stays as it is where the study's features are not on this machine; None
        where there is none, and where the study has a whole release or no release at all.

    Raises
    ------
    RunError
        When the study has no results.
    StoreError
        When the study's features are cut or altered.
    """
    from instrlib.data.store import open_store

    notebooks, path = _notebooks(study), results_path(study).with_name(CLIP_LIST)
    manifest = next(iter(notebooks.values()))["manifest"]
    if not part_of_whole(manifest["parameters"]["corpus"], notebooks):
        return None
    store = folders().data / notebooks[_COUNTS]["manifest"]["keeps"][0]
    if store.is_dir():
        clips = open_store(store).clips[["clip_id", "label", "group"]].sort_values("clip_id")
        write_text(path, clips.to_csv(index=False, lineterminator="\n"))
    return path if path.is_file() else None


def _words(corpus: str) -> _Words:
    return _ABOUT.get(corpus, _ABOUT_ANOTHER)


def class_counts(study: str) -> list[dict[str, Any]]:
    """Read what the figures of notebook 01 were drawn from: clips and groups of each class, and clips by part.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    list of dict
        In the corpus's order, `name`, `n_clips`, `n_groups` and `parts` (clips for training, validation and test, in
        the first split); empty without results of notebook 01.
    """
    whole, split = (arrays_folder(study) / f"01_{name}.npz" for name in ("class_balance", "split_overview"))
    if not (whole.is_file() and split.is_file()):
        return []
    sizes, dealt = read_arrays(whole), read_arrays(split)
    parts = dict(zip(dealt["classes"].tolist(), dealt["counts"].T.astype(int).tolist(), strict=True))
    return [
        {"name": spaced(name), "n_clips": int(n_clips), "n_groups": int(n_groups), "parts": parts[name]}
        for name, n_clips, n_groups in zip(sizes["classes"].tolist(), sizes["n_clips"], sizes["n_groups"], strict=True)
    ]


def _notebooks(study: str) -> dict[str, Any]:
    path = results_path(study)
    if not path.is_file():
        raise RunError(f"{path} is missing; run `instrlib study` for this corpus and profile first.")
    return read_json(path)["notebooks"]


def _render(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instrlib"), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(values).rstrip() + "\n"


def _lengths(study: str) -> dict[str, float] | None:
    path = arrays_folder(study) / "01_duration_histogram.npz"
    if not path.is_file():
        return None
    duration_s = read_arrays(path)["duration_s"].astype(float)
    return {
        "minutes": duration_s.sum() / 60,
        "shortest_s": duration_s.min(),
        "longest_s": duration_s.max(),
    }


def _reasons(unusable: list[dict[str, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in unusable:
        counts[one["reason"]] = counts.get(one["reason"], 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _is_recorded(domain: str) -> bool:
    return domain not in soundfont.FONTS and domain != _SYNTHESISED


def _domain(name: str, rows: list[dict[str, Any]], *, chosen_by: str) -> dict[str, Any]:
    scores = {one["score"]: one for one in rows if one["domain"] == name}
    what = name
    if name == _HELD_OUT:
        what = "its own corpus, held-out clips"
    elif name in soundfont.FONTS:
        what = f"phrases played by {name}, a soundfont that it has not heard"
        if name == chosen_by:
            what += ", but by which its recipe was chosen (so this flatters)"
    elif name in corpora.NAMES:
        what = f"clips of {corpora.info(name).title}"
    return {
        "what": what,
        "n": scores["accuracy"]["n"],
        "n_groups": scores["accuracy"]["n_groups"],
        "accuracy": scores["accuracy"],
        "trivial": scores["most_frequent"]["estimate"],
        "too_sure": scores["confidence_gap"],
        "refused": scores["refused"]["estimate"],
    }


def _degraded(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    known = effects.DEGRADATIONS[name]
    harms = [one["p_holm"] is not None and one["p_holm"] < 1 - LEVEL and one["difference"] < 0 for one in rows]
    # From where on every level does harm: one level alone among others that do none would be no threshold.
    first = len(rows) - next((n for n, harm in enumerate(reversed(harms)) if not harm), len(rows))
    worst = rows[-1]
    return {
        "what": known.label,
        "harm": f"{rows[first]['level']:g} {known.unit}" if first < len(rows) else "not shown",
        "worst": f"{worst['level']:g} {known.unit}",
        "change": {"estimate": worst["difference"], "low": worst["low"], "high": worst["high"]},
    }
