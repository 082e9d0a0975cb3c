"""Forward and backward passes of stacked layers on a CPU, written with numpy's BLAS."""
