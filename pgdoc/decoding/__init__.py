"""From an output plugin's bytes to records. Pure: no socket, thread or clock."""
