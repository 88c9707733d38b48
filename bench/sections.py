"""How the parts of a run appear in the documentation: the title, the axes and the kind of each chart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """One part.

    Attributes:
        part: the part's name in the figures. The chart's file has this name, with dashes for spaces.
        title: the chart's title, which names both sides of the comparison.
        axis: what grows from left to right; empty if each figure is one point.
        draws_values: whether a chart with an axis shows the values beside those of the reference, not the ratios.
    """

    part: str
    title: str
    axis: str = ""
    draws_values: bool = False

    @property
    def file(self) -> str:
        return self.part.replace(" ", "-") + ".svg"


SECTIONS = (
    Section("rates", "Changes per second over a backlog, to pg_recvlogical"),
    Section("plugins", "pgoutput, to wal2json"),
    Section("transactions", "Changes per second, to pg_recvlogical", "changes in a transaction"),
    Section("sizes", "Changes per second, to pg_recvlogical", "bytes in a document"),
    Section("reading", "CPU time of the user's thread for a change, to parsing it with orjson"),
    Section("latency", "From sending an insert to its document in the loop, to a bare psycopg loop"),
    Section("after the commit", "From the commit's return to the document in the loop, to the time of the commit"),
    Section("streams", "From the commit to the last of N readers", "streams", draws_values=True),
    Section("own", "From the commit to the stream of its document, 2,000 changes/s", "streams", draws_values=True),
    Section("cores", "Cores that 2,000 changes/s use", "streams", draws_values=True),
    Section("filters", "Time of one stream beside many others that want nothing, to the stream alone"),
    Section("opening", "Time to open, to a bare psycopg loop"),
    Section("resume", "Time to the first event of a stream that resumes", "MB of WAL", draws_values=True),
    Section("memory by changes", "Memory to read one transaction", "changes in the transaction", draws_values=True),
    Section("memory by streams", "Memory of many streams", "streams", draws_values=True),
    Section("memory of a buffer", "Memory of a full buffer, to a bare psycopg loop"),
    Section("writes", "Writes per second, to a plain table"),
    Section("WAL", "WAL of a write, to a plain table"),
    Section("WAL by size", "WAL of an insert and an update, to a plain table", "bytes in a document"),
    Section("rows", "Time of the server for a row, to a plain table"),
    Section("less WAL", "WAL of an update of a collection, to the same without what lowers it"),
)
