"""Logs in Kafka: experimental, and at least once. Nobody has run this on a broker of Kafka yet."""
