"""From records to changes in their places, what differs between two images, and who gets what. Pure."""
