"""Sentences made from numbers: what a notebook found is computed, never typed."""

from instrlib.core.words import bullets
from instrlib.findings.scores import (
    differences_sentence,
    pair_sentences,
    score_sentence,
)
from instrlib.findings.training import epochs_sentence

__all__ = [
    "bullets",
    "differences_sentence",
    "epochs_sentence",
    "pair_sentences",
    "score_sentence",
]
