"""What every connection needs: connection strings, errors, the catalog and its migrations."""
