"""Sentences made from numbers: what a notebook found is computed, never typed."""

from instrlib.core.words import bullets
from instrlib.findings.scores import (
    differences_sentence,
    pair_sentences,
    score_sentence,
)
from instrlib.findings.training import epochs_sentence
from instrlib.findings.transfer import embedding_sentences, mark_sentence

__all__ = [
    "bullets",
    "differences_sentence",
    "embedding_sentences",
    "epochs_sentence",
    "mark_sentence",
    "pair_sentences",
    "score_sentence",
]
