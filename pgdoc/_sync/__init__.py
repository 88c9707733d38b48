# Written by .ci/twins.py from pgdoc/_async/__init__.py: change that file, and run it.
"""The facade as it is written: for asyncio."""
