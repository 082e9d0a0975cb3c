"""Sharing of runs: files that hold runs, and mirrors of databases on other machines."""
