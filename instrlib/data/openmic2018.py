"""OpenMIC-2018: 20,000 clips of 10 seconds from the Free Music Archive, with partial labels of 20 instruments."""

from pathlib import Path

import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.corpora import Found, check_unique, incomplete
from instrlib.data.files import read_table

FOLDER = INDEXED = "openmic-2018"
"""Folder of the release, to which the paths in mirdata's index are relative."""
LABELS = "openmic-2018-aggregated-labels.csv"
METADATA = "openmic-2018-metadata.csv"
PARTITIONS = {"train": "partitions/split01_train.csv", "test": "partitions/split01_test.csv"}

PRESENT = 0.5
"""Share of the (weighted) annotators from which an instrument counts as present."""


def find(root: Path) -> Found:
    """List the clips with their partial labels; `group` is the artist, or the clip if unknown.

    Labels come from the table of aggregated answers: 1 from a relevance of `PRESENT` on, 0 below, NaN for unrated
    instruments (the zeros of `Y_mask` in `openmic-2018.npz`, which requires unpickling). `split` is the official part.
    Further columns: `title` and `licence`.
    """
    base = root / FOLDER
    if lacking := [name for name in (LABELS, METADATA, *PARTITIONS.values()) if not (base / name).is_file()]:
        raise incomplete("openmic2018", root, ", ".join(lacking))
    answers = read_table(base / LABELS, ("sample_key", "instrument", "relevance"))
    relevance = pd.to_numeric(answers.relevance, errors="coerce")
    for row in answers[~relevance.between(0, 1)].itertuples():
        raise CorpusError(
            f"{base / LABELS}: relevance of {row.instrument} in {row.sample_key} not in 0 to 1; download it again."
        )
    check_unique(base / LABELS, answers.sample_key + " (" + answers.instrument + ")")
    present = answers.assign(present=(relevance >= PRESENT).astype(float))
    labels = present.pivot(index="sample_key", columns="instrument", values="present")
    table = read_table(base / METADATA, ("sample_key", "artist_name", "track_title", "license_title"))
    check_unique(base / METADATA, table.sample_key)
    known = table.set_index("sample_key").reindex(labels.index, fill_value="")
    part_of = {key: part for part, name in PARTITIONS.items() for key in (base / name).read_text("utf-8-sig").split()}
    if unknown := sorted(set(labels.index) - set(part_of)):
        raise CorpusError(f"{base / 'partitions'}: no part contains the clip {unknown[0]}; download it again.")
    artists = known.artist_name.str.strip()
    clips = pd.DataFrame(
        {
            "clip_id": labels.index,
            "path": [f"{FOLDER}/audio/{key[:3]}/{key}.ogg" for key in labels.index],
            # Merging two artists of one name costs little; an artist on both sides would be a leak.
            "group": [f"artist/{artist.casefold()}" if artist else f"clip/{key}" for key, artist in artists.items()],
            "split": [part_of[key] for key in labels.index],
            "title": known.track_title.to_numpy(),
            "licence": known.license_title.to_numpy(),
        }
    )
    return Found(clips, labels)
