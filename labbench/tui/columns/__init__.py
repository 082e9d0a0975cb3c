"""Columns of the runs table."""
