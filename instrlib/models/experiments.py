"""Old place of `variants`."""

from instrlib.core.io import slug
from instrlib.models.variants import (
    Outcome,
    Variant,
    answers,
    describe,
    make_outcome,
    multiply_adds_a_clip,
    read_outcome,
    run_folder,
    run_variants,
)

__all__ = [
    "Outcome",
    "Variant",
    "answers",
    "describe",
    "make_outcome",
    "multiply_adds_a_clip",
    "read_outcome",
    "run_folder",
    "run_variants",
    "slug",
]
