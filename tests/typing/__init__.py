"""What type checkers must accept and refuse. mypy and pyright read these files in `make lint`; nothing runs them."""
