"""``python -m teachkit``: the command line, also under torchrun."""

from teachkit.cli import main

if __name__ == "__main__":
    main()
