"""Entry point of `python -m labbench`, the same as the command `labbench`."""

from labbench.cli import main

main(prog_name="labbench")
