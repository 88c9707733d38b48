"""Groups of readers of one log: each partition is read by one member at a time."""
