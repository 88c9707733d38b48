"""Logs in NATS JetStream."""
