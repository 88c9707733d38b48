"""Run `pgdoc` with `python -m pgdoc`."""

from pgdoc.cli import main

if __name__ == "__main__":
    main()
