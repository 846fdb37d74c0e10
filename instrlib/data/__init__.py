"""Corpora as tables, their downloads, splits, and stored features."""
