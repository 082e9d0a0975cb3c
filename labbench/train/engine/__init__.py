"""Engines: three ways to step a stack of runs behind one interface (`stepper`)."""
