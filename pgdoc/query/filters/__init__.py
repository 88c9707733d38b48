"""Filters, sorts and projections: parsed once, compiled to SQL, and evaluated in Python."""
