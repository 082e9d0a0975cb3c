"""Scales of an analysis: units in which squares are finite, and logarithms of losses."""
