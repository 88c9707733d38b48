"""The models of typed collections: which library reads one, and how."""
