"""The values that users and the server hold: documents, ids, names, metadata, positions, tokens."""
