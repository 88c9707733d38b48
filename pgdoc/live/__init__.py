"""Live queries, aggregates and mirrors: what they hold, and what a change of a row does to it. No I/O."""
