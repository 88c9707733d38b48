"""What `python -m bench writer_parts` adds to a plain table is what a collection has."""

from __future__ import annotations

import psycopg
import pytest

from bench import writer, writer_parts
from bench.harness import started
from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server.installation import find_installation


@pytest.fixture(autouse=True)
def _needs_wal2json():
    try:
        find_installation(plugin="wal2json")
    except (ServerNotFound, PluginMissing) as error:
        pytest.skip(str(error))


def test_a_table_with_every_part_writes_and_refuses_what_a_collection_does():
    with started(quick=True, most_rounds=1) as bench, bench.site() as site, site.connect() as connection:
        connection.execute(writer.SETUP)
        connection.execute(writer_parts.SETUP)
        tables = writer_parts.create_tables(connection)
        assert tables.keys() >= {writer_parts.TABLE, writer_parts.ALL, writer_parts.COLLECTION}
        columns = {}
        for name in (writer_parts.ALL, writer_parts.COLLECTION):
            table = tables[name]
            connection.execute(f"INSERT INTO {table} (id, data) VALUES ('a', '{{}}')")
            connection.execute(f"UPDATE {table} SET data = '{{\"n\": 1}}', version = 9")
            columns[name] = connection.execute(
                f"SELECT id, data, version, replaced_version, created_at <= updated_at FROM {table}"
            ).fetchall()
            for values in ("'', '{}'", "'b', '[]'", "'c', '{\"_id\": 1}'", "'d', '{}', 2"):
                names = "id, data, version" if values.endswith("2") else "id, data"
                with pytest.raises(psycopg.Error):
                    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({values})")
        assert columns[writer_parts.ALL] == columns[writer_parts.COLLECTION] == [("a", {"n": 1}, 2, 1, True)]


def test_the_cost_of_every_part_is_printed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["writer_parts", "1", "--documents", "5"])
    assert writer_parts.main() == 0
    printed = capsys.readouterr().out
    assert all(part in printed for part in (*writer_parts.PARTS, writer_parts.COLLECTION, writer_parts.ALL))
