"""Relays events to other systems: formats of messages, engines, webhooks."""
