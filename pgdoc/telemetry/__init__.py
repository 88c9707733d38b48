"""Metrics and traces of the streams and stores of this process, and metrics of a server."""
