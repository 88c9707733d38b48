"""Random filters, updates, sorts and fields, valid and invalid, run against random documents."""
