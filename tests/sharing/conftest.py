"""Fixtures of the tests in this folder."""

from helpers.store_fixtures import other, path

__all__ = ["other", "path"]
