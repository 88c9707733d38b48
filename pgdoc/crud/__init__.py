"""The calls on documents without I/O: their statements, and what the results mean."""
