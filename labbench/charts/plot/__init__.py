"""Drawing of the curves of a plot on a canvas."""
