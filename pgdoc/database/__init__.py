"""What any connection needs: conninfo, the map of errors, the catalog and its migrations."""
