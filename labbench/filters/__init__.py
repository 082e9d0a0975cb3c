"""The filter language: text to a tree of terms that the store compiles to SQL."""

from labbench.filters.parser import And, Comparison, Filter, Not, Or, parse

__all__ = ["And", "Comparison", "Filter", "Not", "Or", "parse"]
