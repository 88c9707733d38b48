# Written by .ci/twins.py from tests/integration/_async/__init__.py: change that file, and run it.
