"""A test in which everything breaks: writers, streams and consumers in separate processes, and faults of every kind.

`day.run` runs the test, and `verdict` checks the result. The modules:

- `plan`: the settings of each process, passed on its command line.
- `supervisor`: starts, kills and restarts the processes.
- `writer`: a process that writes. Each transaction adds a ledger row, which proves whether it committed.
- `notebook`: what a stream saves in one SQLite transaction, as a careful program would: its events, the documents that
  they produce, and its token. A killed process resumes from it.
- `reader`, `consumer`: the processes that read.
- `faults`: the faults, chosen by a seed.
- `verdict`: compares every notebook with the *reference*, a replication slot that is created before the first write and
  read with `pg_logical_slot_get_changes` after the last. It is the server's own record in commit order, and involves no
  pgdoc code. Audit triggers would slow the writers down, and would not know the commit order.

Events are compared by a digest of everything in them (`digest`): equal sequences of digests mean equal events, and the
first different digest shows where a sequence is wrong.
"""
