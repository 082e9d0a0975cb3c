"""CUDA: steps replayed as graphs, and the checks that a GPU step must pass."""
