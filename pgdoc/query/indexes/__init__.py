"""Index definitions, and which indexes a filter can use."""
