"""Errors, settings, files, caches and processes."""
