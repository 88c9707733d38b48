"""Regular expressions that RE2 and PostgreSQL read alike."""
