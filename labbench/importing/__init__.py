"""Import of runs recorded elsewhere, one module per source; importing again is a no-op."""
