"""Series of points: writing, rollups, and reading at the resolution of a screen."""
