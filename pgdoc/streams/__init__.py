"""What feeds change streams: the hub, catch-up readers, bookmarks, mailboxes."""
