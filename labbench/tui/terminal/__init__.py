"""The terminal beneath Textual: input, changed cells, styles, questions to it."""
