"""``python -m teachkit``: the command line, also under torchrun."""

from teachkit.cli import main

main()
