"""What handlers of events are, and how their failures are treated."""
