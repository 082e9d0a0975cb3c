"""Answers for people: sentences, tables, text charts, HTML."""
