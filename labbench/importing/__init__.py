"""Import of runs recorded elsewhere, one module per source; importing twice changes nothing."""
