"""Bench of trust: attacks on labbench, each with a seed, and a table of what was tried, survived and lost."""
