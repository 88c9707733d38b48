"""The replication connection: slots, bookmarks, the reader. The only room that touches libpq."""
