"""Writing of runs that `labbench run` trains."""
