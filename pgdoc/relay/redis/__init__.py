"""Logs in Redis Streams."""
