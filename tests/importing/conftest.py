"""Fixtures of the tests in this folder."""

from helpers.store_fixtures import other, path, reader, writer

__all__ = ["other", "path", "reader", "writer"]
