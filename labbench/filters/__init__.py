"""Filter language: parses text to a tree of terms, which the store compiles to SQL."""

from labbench.filters.parser import And, Comparison, Filter, Not, Or, parse

__all__ = ["And", "Comparison", "Filter", "Not", "Or", "parse"]
