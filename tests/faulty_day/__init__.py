"""A day on which everything breaks: writers, streams and consumers in processes of their own, faults of every kind.

`day.run` makes one, and `verdict` tells what became of it. The parts:

- `plan`: who takes part, as values that a process is given on its command line.
- `writer`: a process that writes; a ledger row in each transaction says whether it committed, whatever broke meanwhile.
- `notebook`: what a stream keeps: its events, the tables that they come to, and its token, all in one SQLite
  transaction, as a careful program would. A process that is killed goes on from there.
- `reader`, `consumer`: the processes that read.
- `faults`: what breaks, seeded.
- `verdict`: every notebook against the *reference*: a replication slot that was made before the day and is read with
  `pg_logical_slot_get_changes` when it is over. That is the server's own account, in commit order, and no code of
  pgdoc has a part in it; triggers that keep books would slow the writers down, and would not know the order of commits.

An event is compared as a digest of all that it says (`digest`), so that equal sequences of digests mean equal events,
and a difference is found at its very place.
"""
