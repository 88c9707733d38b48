"""`python -m pgdoc` is `pgdoc`."""

from pgdoc.cli import main

if __name__ == "__main__":
    main()
