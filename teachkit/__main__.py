"""``teachkit`` and ``python -m teachkit``: the command line, also under torchrun."""

import sys


def main() -> None:
    """Load the command line and run it; Ctrl-C is one line and exit code 130, also while it loads."""
    try:
        from teachkit import cli
    except KeyboardInterrupt:
        print("\nteachkit: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    cli.main()


if __name__ == "__main__":
    main()
