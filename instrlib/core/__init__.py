"""Errors, settings, files, caches and processes; imports nothing of the packages above."""
