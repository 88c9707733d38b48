"""Filters, sorts and projections: parsed once, compiled to SQL and matched in Python."""
