"""Terminal charts from numbers. No module here imports Textual."""
