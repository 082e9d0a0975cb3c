"""Noise of results over few seeds: of single runs, of means and their differences, and of means over configurations."""
