"""What partitions cost: writers, readers and streams of a collection of 1, 16 and 256 partitions, to a plain one.

    python -m bench partitions [--quick] [--rounds N] [PART ...]

Each collection has documents of 200 bytes. Calls go through a `Store`, and commits do not wait for the disk. The parts,
all by default:

    calls      calls per second of one session: insert and get, by id; find of 20 documents in the order of their ids,
               which reads every partition; insert_many of 1,000 documents
    stream     the CPU time of the reading process for a change, through each plugin: its loop reads the document's id
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from bench import machine
from bench.arguments import parser_of, positive
from bench.figures import compare, in_turns, table
from bench.harness import PLUGINS, flush, seconds, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pgdoc
    from bench.figures import Figure
    from bench.harness import Bench, Site
    from pgdoc import ResumeToken

PLAIN = "no partitions"
KINDS = {PLAIN: None, "1 partition": 1, "16 partitions": 16, "256 partitions": 256}
DATA = {"status": "new", "text": "x" * 160}
A_TIME = 1_000


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="run everything with small sizes, to see that it works")
    parser.add_argument("--rounds", type=positive, help="the most rounds of one figure: 5, and 1 in a quick run")
    parser.add_argument("parts", nargs="*", metavar="PART", help="the parts to run")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: not among {', '.join(PARTS)}")
    load = machine.load_average()
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    with started(quick=arguments.quick, most_rounds=rounds) as bench, bench.site() as site:
        figures = [figure for name in arguments.parts or PARTS for figure in PARTS[name](bench, site)]
    print(table(figures))
    if text := machine.warning(load):
        print(f"!!! {text}")
    return 0


def name_of(kind: str) -> str:
    return f"c{KINDS[kind] or ''}"


def calls(bench: Bench, site: Site) -> Iterator[Figure]:
    store = site.stores["wal2json"]
    number = bench.size(1_000, 50)
    stored = bench.size(20_000, 1_000)
    with site.connect() as connection:
        connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    for kind, partitions in KINDS.items():
        store.create_collection(name_of(kind), partitions=partitions)
        store[name_of(kind)].insert_many((f"stored-{n:07}", DATA) for n in range(stored))
    with site.connect() as connection:
        connection.execute("ANALYZE")
    ways = {kind: partial(measure, store[name_of(kind)], number) for kind in KINDS}
    rounds = in_turns(bench.rounds(), ways)
    for what in ("insert", "get", "find 20 by id", "insert_many"):
        values = {f"{what}, {kind}": [each[what] for each in turns] for kind, turns in rounds.items()}
        unit = "documents/s" if what == "insert_many" else "calls/s"
        yield from compare("calls", values, f"{what}, {PLAIN}", unit)


def measure(on: pgdoc.Collection, number: int) -> dict[str, float]:
    ids = [f"new-{n:07}" for n in range(number)]
    found: dict[str, float] = {}
    found["insert"] = number / seconds(lambda: [on.insert(key, DATA) for key in ids])
    found["get"] = number / seconds(lambda: [on.get(key) for key in ids])
    found["find 20 by id"] = (
        number
        / 4
        / seconds(lambda: [list(on.find({"_id": {"$gt": key}}, sort="_id", limit=20)) for key in ids[: number // 4]])
    )
    on.delete_many({"_id": {"$gte": "new-", "$lt": "new."}})
    many = [(f"many-{n:07}", DATA) for n in range(max(number, A_TIME))]
    found["insert_many"] = len(many) / seconds(lambda: on.insert_many(many))
    on.delete_many({"_id": {"$gte": "many-", "$lt": "many."}})
    return found


def streams(bench: Bench, site: Site) -> Iterator[Figure]:
    changes = bench.size(20_000, 1_000)
    tokens: dict[str, ResumeToken] = {}
    for kind, partitions in KINDS.items():
        on = site.stores["wal2json"].create_collection(name_of(kind), partitions=partitions)
        with on.watch() as stream:
            token = stream.resume_token
        with site.connect("-c synchronous_commit=off") as connection:
            block = f"""DO $do$ BEGIN FOR block IN 0 .. {changes // 200} - 1 LOOP
              INSERT INTO docs.{name_of(kind)} (id, data)
              SELECT 'row-' || n, '{{"status": "new"}}' FROM generate_series(block * 100, block * 100 + 99) n;
              COMMIT;
              UPDATE docs.{name_of(kind)} SET data = data || '{{"status": "paid"}}'
              WHERE id = ANY (ARRAY(SELECT 'row-' || n FROM generate_series(block * 100, block * 100 + 99) n));
              COMMIT;
            END LOOP; END $do$"""
            connection.execute(block.encode())
            flush(connection)
        tokens[kind] = token
    total = changes // 200 * 200
    for plugin in PLUGINS:
        ways = {kind: partial(cpu_us, site.stores[plugin][name_of(kind)], tokens[kind], total) for kind in KINDS}
        rounds = in_turns(bench.rounds(), ways)
        values = {f"{plugin}, {kind}": turns for kind, turns in rounds.items()}
        yield from compare("stream", values, f"{plugin}, {PLAIN}", "us/change", less_is_better=True)


def cpu_us(on: pgdoc.Collection, token: ResumeToken, total: int) -> float:
    """Return the CPU time of this process for each change of a stream."""
    with on.watch(resume_after=token) as stream:
        began = time.process_time()
        for _ in range(total):
            assert next(stream).document_id is not None  # noqa: S101
        return (time.process_time() - began) / total * 1e6


PARTS = {"calls": calls, "stream": streams}

if __name__ == "__main__":
    sys.exit(main())
