"""Threads, time and waiting: primitives, deadlines, retries, wake-ups, forks, a cache."""
