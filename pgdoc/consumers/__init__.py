"""Durable consumers: ownership, slots, acknowledgements."""
