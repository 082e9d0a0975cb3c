"""Comparisons that account for tuning: each value at its own best setting, and the best result against the budget."""
