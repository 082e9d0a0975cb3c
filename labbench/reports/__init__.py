"""Formatting of answers as sentences, tables, text charts and HTML."""
