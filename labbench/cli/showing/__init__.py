"""Commands that show runs: tables of many, everything of one, and comparisons."""
