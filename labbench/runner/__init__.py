"""Implementation of `labbench run`, from grid files to finished runs."""
