"""Fixtures of the tests of reporting."""

from example_study import published  # noqa: F401
