"""The facade for threads: generated from `_async`."""
