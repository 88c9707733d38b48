"""From records to changes with positions, their events, and which subscription gets which change. Pure."""
