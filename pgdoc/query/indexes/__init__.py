"""Index definitions, the keys that indexes hold, and which filters use them."""
