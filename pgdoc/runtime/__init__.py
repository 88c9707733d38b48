"""Threads, time and waiting: primitives, deadlines, wake-ups, forks, a small cache."""
