"""Brings runs in that were recorded elsewhere. One module a source; twice changes nothing."""
