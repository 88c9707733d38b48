"""The SQL that lets a role read, write, stream, or own collections, as `pgdoc grant` prints it. No I/O.

`docs/reference/roles.md` says what each purpose means.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgdoc.database.quoting import identifier
from pgdoc.database.rights import MESSAGE_RIGHTS, STREAMER_TABLES, granting_command
from pgdoc.errors import CatalogMissing, DatabaseError
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["PURPOSES", "GrantFacts", "GrantPlan", "GrantStep", "fact_queries", "plan_grant", "read_facts"]

PURPOSES: Final = ("reader", "writer", "streamer", "owner")

_ENTRY_FUNCTIONS: Final = ("pgdoc.enter_collection(regclass)", "pgdoc.enter_table(regclass, text, text)")
_FUNCTIONS: Final = (
    "pgdoc.enter_collection(pg_catalog.regclass), "
    "pgdoc.enter_table(pg_catalog.regclass, pg_catalog.text, pg_catalog.text)"
)
_READ: Final = "SELECT"
_WRITE: Final = "SELECT, INSERT, UPDATE, DELETE"
_HAS_INHERIT_OPTION: Final = 160000  # since then, the GRANT of a role says whether its rights are inherited

_QUERIES: Final = ("server", "role", "collections", "tables", "creators", "readers")

_MEANINGS: Final = {
    "reader": 'reads the documents of the schema "{schema}"',
    "writer": 'reads and writes the documents of the schema "{schema}", and publishes events of its own',
    "streamer": 'opens streams, consumers and workers, with snapshots of the schema "{schema}" and of watched tables',
    "owner": 'creates collections in the schema "{schema}" and owns them, and lets streams watch tables that it owns',
}
_NEEDS_REPLICATION: Final = (
    "a superuser; from PostgreSQL 16 on also a role with CREATEROLE and REPLICATION, and ADMIN OPTION on the role"
)
_REPLICATION: Final = (
    "REPLICATION is a right on the whole server: the role can copy all databases (pg_basebackup), read the changes of "
    "all tables, and drop any slot"
)
_NO_SNAPSHOT: Final = "the role can't take a snapshot of it without BYPASSRLS"


class GrantStep(NamedTuple):
    """One statement, and which role may run it."""

    sql: str
    needs: str


@dataclass(frozen=True, slots=True)
class GrantPlan:
    """What a role lacks for a purpose.

    Attributes:
        meaning: what the role can do afterwards.
        steps: the statements, in an order in which they can run.
        notes: what no statement of these gives, or what else to know.
    """

    role: str
    purpose: str
    schema: str
    database: str
    meaning: str
    steps: tuple[GrantStep, ...]
    notes: tuple[str, ...]

    def script(self) -> str:
        """Return the statements as text for psql, in one transaction, with the rest as comments."""
        lines = [_comment(f'role "{self.role}" {self.meaning}; in the database "{self.database}"')]
        if self.steps:
            lines.append("BEGIN;")
            needs = ""
            for step in self.steps:
                if step.needs != needs:
                    lines.append(_comment(f"needs {step.needs}"))
                    needs = step.needs
                lines.append(f"{step.sql};")
            lines.append("COMMIT;")
        else:
            lines.append(_comment("it has all rights for this already"))
        return "\n".join([*lines, *map(_comment, self.notes)])


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What `grants.sql` found: a row of `server` and `role`, and the rows of the other blocks."""

    server: Any
    role: Any
    collections: Sequence[Any] = ()
    tables: Sequence[Any] = ()
    creators: Sequence[Any] = ()
    readers: Sequence[Any] = ()


def fact_queries(
    role: str, schema: str, creators: Sequence[str] = ()
) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
    """Return the queries of `read_facts` by name, and the parameters of all of them."""
    params = {
        "role": role,
        "schema": schema,
        "creators": list(creators),
        "tables": list(STREAMER_TABLES),
        "functions": list(_ENTRY_FUNCTIONS),
    }
    return [(name, statement("grants", name).encode()) for name in _QUERIES], params


def read_facts(found: dict[str, list[Any]], role: str, creators: Sequence[str] = ()) -> GrantFacts:
    """Return the facts from the rows of `fact_queries`.

    Raises:
        CatalogMissing: the database has no catalog, or an old one.
        DatabaseError: a role does not exist.
    """
    (server,) = found["server"]
    if server.catalog_owner is None:
        raise CatalogMissing("the database has no pgdoc catalog: create it with `pgdoc init` or `store.migrate()`")
    if server.missing:
        raise CatalogMissing(f"the pgdoc catalog is too old, and lacks {', '.join(server.missing)}: run `pgdoc init`")
    known = {role, *(each.name for each in found["creators"])}
    unknown = [role, *creators] if not found["role"] else [name for name in creators if name not in known]
    if unknown:
        raise DatabaseError(
            f'role "{unknown[0]}" does not exist: check the name, or run CREATE ROLE {identifier(unknown[0])} LOGIN',
            sqlstate="42704",
        )
    return GrantFacts(server, found["role"][0], *(found[name] for name in _QUERIES[2:]))


def plan_grant(role: str, purpose: str, schema: str, facts: GrantFacts, *, complete: bool = False) -> GrantPlan:
    """Return what a role lacks for a purpose; with `complete`, also what it has already."""
    planner = _Planner(role, schema, facts, complete=complete)
    if facts.role.is_superuser:
        planner.notes.append("the role is a superuser, which no privilege limits: use a role that is none")
    else:
        planner.plan(purpose)
    meaning = _MEANINGS[purpose].format(schema=schema)
    return GrantPlan(role, purpose, schema, facts.server.database, meaning, tuple(planner.steps), tuple(planner.notes))


@dataclass(slots=True)
class _Planner:
    """Collects the steps and notes of one plan."""

    role: str
    schema: str
    facts: GrantFacts
    complete: bool = field(kw_only=True)
    steps: list[GrantStep] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def plan(self, purpose: str) -> None:
        """Collect those of a purpose."""
        self._let_enter()
        match purpose:
            case "reader":
                self._grant_collections(_READ)
                self._note_policies("the role sees the documents that they let through")
            case "writer":
                self._grant_collections(_WRITE)
                self._let_publish_messages()
                self._note_policies("the role reads and writes the documents that they let through")
            case "streamer":
                self._let_stream()
            case _:
                self._let_own()

    def _add(self, text: str, needs: str, *, has: bool = False) -> None:
        """Add a statement, unless the role has its rights already."""
        if self.complete or not has:
            self.steps.append(GrantStep(text, needs))

    @property
    def _to(self) -> str:
        return f"TO {identifier(self.role)}"

    @property
    def _schema_owner(self) -> str:
        return f'role "{self.facts.server.schema_owner or self.facts.server.grantor}"'

    @property
    def _catalog_owner(self) -> str:
        return f'role "{self.facts.server.catalog_owner}", which owns the catalog'

    def _let_enter(self) -> None:
        database, schema = identifier(self.facts.server.database), identifier(self.schema)
        has = self.facts.role
        self._add(f"GRANT CONNECT ON DATABASE {database} {self._to}", "the owner of the database", has=has.connects)
        if self.facts.server.schema_owner is None:
            self._add(f"CREATE SCHEMA IF NOT EXISTS {schema}", "a role with CREATE on the database")
        self._add(f"GRANT USAGE ON SCHEMA {schema} {self._to}", self._schema_owner, has=has.uses_schema)

    def _grant_collections(self, rights: str) -> None:
        """Grant rights on the collections that exist, and on what others create later."""
        self._grant_on(
            rights,
            (
                (found.owner, identifier(self.schema, found.name), found.reads and (found.writes or rights == _READ))
                for found in self.facts.collections
            ),
        )
        creators = {found.name: set(found.defaults) for found in self.facts.creators}
        server = self.facts.server
        may_create = server.catalog_owner_is_superuser or not server.grantor_is_superuser
        if server.schema_owner is None and server.grantor != self.role and may_create:
            creators.setdefault(server.grantor, set())  # it will own the schema
        if creators and server.has_other_tables:
            self.notes.append(
                f'the schema "{self.schema}" has tables that are no collections: these get nothing, but default '
                "privileges cover all tables that their roles create there later"
            )
        for creator, held in sorted(creators.items()):
            self._add(
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {identifier(creator)} IN SCHEMA {identifier(self.schema)} "
                f"GRANT {rights} ON TABLES {self._to}",
                f'role "{creator}", or a member of it',
                has=held.issuperset(rights.split(", ")),
            )

    def _grant_on(self, rights: str, tables: Iterable[tuple[str, str, bool]]) -> None:
        """Grant rights on tables, in one statement for those of each owner. Each has its owner, name, and `has`."""
        of_owners = defaultdict(list)
        for owner, table, has in tables:
            if owner != self.role and (self.complete or not has):
                of_owners[owner].append(table)
        for owner, names in sorted(of_owners.items()):
            self._add(f"GRANT {rights} ON TABLE {', '.join(names)} {self._to}", f'role "{owner}"')

    def _let_stream(self) -> None:
        self._give_replication()
        self._grant_collections(_READ)
        self._grant_tables()
        tables = ", ".join(STREAMER_TABLES)
        self._add(
            f"GRANT {_WRITE} ON TABLE {tables} {self._to}", self._catalog_owner, has=self.facts.role.writes_consumers
        )
        self._note_policies(_NO_SNAPSHOT)
        if not self.facts.role.bypasses_policies:
            self.notes += [
                f'table "{found.schema}.{found.name}" has row-level security: {_NO_SNAPSHOT}'
                for found in self.facts.tables
                if found.has_policies
            ]

    def _give_replication(self) -> None:
        """Give the attribute first: it is what a role that may grant everything else may lack the right for."""
        if not self.facts.role.can_login:
            self.notes.append(
                "the role can't log in, and its members do not inherit REPLICATION: run this command for each of them"
            )
        has = self.facts.role.may_replicate
        if self.facts.server.has_rds_replication:
            self._add(f"GRANT rds_replication {self._to}", "a member of rds_superuser", has=has)
        else:
            self._add(f"ALTER ROLE {identifier(self.role)} REPLICATION", _NEEDS_REPLICATION, has=has)
            self.notes.append(_REPLICATION)

    def _grant_tables(self) -> None:
        """Grant rights on the tables that are watched as they are; those to come need this again."""
        schemas = {found.schema: (found.schema_owner, found.uses_schema) for found in self.facts.tables}
        for schema, (owner, has) in sorted(schemas.items()):
            if schema != self.schema:
                self._add(f"GRANT USAGE ON SCHEMA {identifier(schema)} {self._to}", f'role "{owner}"', has=has)
        self._grant_on(
            _READ, ((found.owner, identifier(found.schema, found.name), found.reads) for found in self.facts.tables)
        )

    def _let_own(self) -> None:
        server, has = self.facts.server, self.facts.role
        self._add(f"GRANT CREATE ON SCHEMA {identifier(self.schema)} {self._to}", self._schema_owner, has=has.creates)
        self._add(f"GRANT EXECUTE ON FUNCTION {_FUNCTIONS} {self._to}", self._catalog_owner, has=has.registers)
        if not server.catalog_owner_is_superuser and self.role != server.catalog_owner:
            self._let_publish()
        if server.publication_owner != server.catalog_owner:
            self.notes.append(
                'the publication "pgdoc" does not belong to the owner of the catalog: run ALTER PUBLICATION pgdoc '
                f"OWNER TO {identifier(server.catalog_owner)}"
            )
        self.notes += [
            f'role "{reader.name}" has no rights on what this role creates: run '
            f"{granting_command(reader.name, 'writer' if reader.writes else 'reader', self.schema)} afterwards"
            for reader in self.facts.readers
        ]

    def _let_publish_messages(self) -> None:
        """Let the role publish, if whoever runs this may grant it: writing documents needs no right of the catalog."""
        server, text = self.facts.server, f"GRANT {MESSAGE_RIGHTS} {self._to}"
        if server.grantor_is_superuser or server.grantor == server.catalog_owner:
            self._add(text, self._catalog_owner, has=self.facts.role.publishes)
        elif not self.facts.role.publishes:
            self.notes.append(f"to let the role publish events, run {text} as {self._catalog_owner}")

    def _let_publish(self) -> None:
        """Let the owner of the catalog publish what the role owns: PostgreSQL has no smaller right for that."""
        server, owner = self.facts.server, self.facts.server.catalog_owner
        if self.facts.role.acts_as_catalog_owner:
            self.notes.append(
                f'the role is a member of "{owner}", which owns the catalog, and so has all its rights: run REVOKE '
                f"{identifier(owner)} FROM {identifier(self.role)}, and this command again"
            )
            return
        has_options = server.version >= _HAS_INHERIT_OPTION
        options = " WITH INHERIT TRUE, SET FALSE" if has_options else ""
        self.notes.append(f'role "{owner}", which owns the catalog, has all rights of this role from then on')
        self._add(
            f"GRANT {identifier(self.role)} TO {identifier(owner)}{options}",
            "a superuser, or a role with ADMIN OPTION on the role (up to PostgreSQL 15, CREATEROLE is enough)",
            has=self.facts.role.is_published_for,
        )
        if not has_options and not server.catalog_owner_inherits:
            self.notes.append(
                f'role "{owner}", which owns the catalog, has NOINHERIT and could publish nothing: run '
                f"ALTER ROLE {identifier(owner)} INHERIT"
            )

    def _note_policies(self, effect: str) -> None:
        if not self.facts.role.bypasses_policies:
            self.notes += [
                f'collection "{self.schema}.{found.name}" has row-level security: {effect}'
                for found in self.facts.collections
                if found.has_policies
            ]


def _comment(text: str) -> str:
    """Return a comment of SQL. A name in it must not end its line."""
    return "-- " + "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
