"""Queries over runs: filters, sorting, lookup, tables."""
