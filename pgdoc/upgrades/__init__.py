"""What `pgdoc upgrade` does around an upgrade of PostgreSQL."""
