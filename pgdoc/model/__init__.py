"""The values that users handle: documents, ids, names, metadata, positions and tokens."""
