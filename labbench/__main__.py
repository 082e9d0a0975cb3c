"""`python -m labbench` is the command `labbench`."""

from labbench.cli import main

main(prog_name="labbench")
