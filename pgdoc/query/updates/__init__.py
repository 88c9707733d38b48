"""Updates: parsed once, compiled to SQL, and applied in Python."""
