"""``python -m teachkit``: the command line, also under torchrun."""

try:
    from teachkit.cli import main
except KeyboardInterrupt:  # while torch was loading
    raise SystemExit(130) from None

if __name__ == "__main__":
    main()
