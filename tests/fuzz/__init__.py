"""Filters, updates, sorts and fields of any shape, well made or not, against documents: what a seed makes of dice."""
