"""Decodes the messages of output plugins to records. Pure: no socket, thread or clock."""
