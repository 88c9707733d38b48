"""Regular expressions that mean the same in RE2 and in PostgreSQL."""
