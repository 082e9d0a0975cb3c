"""The runner of `labbench run`: from grid files to finished runs."""
