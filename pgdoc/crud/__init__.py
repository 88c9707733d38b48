"""Document calls without I/O: statements, results, errors of writes, the COPY format."""
