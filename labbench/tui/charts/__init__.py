"""The chart widget and what feeds it."""
