"""Replication connections, slots, and readers that stream from a slot."""
