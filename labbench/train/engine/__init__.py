"""Engines: three ways to train runs, behind the `Stepper` interface of `stepper.py`."""
