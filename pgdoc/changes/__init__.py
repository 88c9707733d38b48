"""From records to positioned changes, their events, and the subscriptions that want them. Pure."""
