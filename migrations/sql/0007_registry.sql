-- The registry: which tables are collections, and what became of each. A table is a collection because it stands here, not
-- because of its columns, and every reader finds the rows of this table at their place in the WAL.

-- A restored dump or a copied database has the rows of another one, whose oids and LSNs mean nothing here: no row is
-- believed until `rebind` is called.
CREATE TABLE pgdoc.identity (
  only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  system_id      bigint NOT NULL,
  database_oid   oid NOT NULL,
  registry_oid   oid NOT NULL,
  messages_until pg_lsn NOT NULL
);
COMMENT ON TABLE pgdoc.identity IS 'the database that the registry belongs to; one row';
COMMENT ON COLUMN pgdoc.identity.registry_oid IS 'of the table registry: a dump that is restored over its own database changes it, as those of all tables';
COMMENT ON COLUMN pgdoc.identity.messages_until IS 'before this LSN, logical messages report what happened to collections';

-- A change of the table (schema_name, name) belongs to the collection if since <= LSN < until. Table locks order a change
-- against the DDL of its table, so the LSN of the change decides, whatever the order of the commits.
CREATE TABLE pgdoc.registry (
  oid         oid NOT NULL,
  schema_name text NOT NULL,
  name        text NOT NULL,
  since       pg_lsn NOT NULL,
  opened_by   text NOT NULL CHECK (opened_by IN ('create', 'rename', 'move')),
  from_name   text,
  opened_xid  xid8 NOT NULL DEFAULT pg_current_xact_id(),
  until       pg_lsn,
  closed_by   text CHECK (closed_by IN ('drop', 'rename', 'move', 'unregister')),
  closed_xid  xid8,
  exact       boolean NOT NULL DEFAULT true,
  PRIMARY KEY (oid, since)
);
CREATE UNIQUE INDEX registry_open ON pgdoc.registry (schema_name, name) WHERE until IS NULL;
ALTER TABLE pgdoc.registry REPLICA IDENTITY FULL;
COMMENT ON TABLE pgdoc.registry IS 'one row for each name that a collection has or had; rows without `until` are the present collections';
COMMENT ON COLUMN pgdoc.registry.from_name IS 'the former name, if opened_by is rename';
COMMENT ON COLUMN pgdoc.registry.exact IS 'false if the DDL was found later: changes between it and `since` or `until` may have another name';

-- The order in which transactions that changed the registry commit. LSNs do not tell: a transaction that drops a collection
-- first may commit last.
CREATE TABLE pgdoc.registry_commits (
  xid xid8 PRIMARY KEY,
  at  pg_lsn NOT NULL
);
COMMENT ON TABLE pgdoc.registry_commits IS 'an LSN just before the commit of each transaction that changed the registry, in the order of the commits';

-- Runs once per transaction, when it commits. The lock is held from here to the end of the commit. If another transaction
-- holds it for long (a prepared one, or SET CONSTRAINTS), the order is given up rather than the commit.
CREATE FUNCTION pgdoc.order_commits() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  me xid8 := pg_current_xact_id();
BEGIN
  IF EXISTS (SELECT FROM pgdoc.registry_commits WHERE xid = me) THEN
    RETURN NULL;
  END IF;
  BEGIN
    LOCK TABLE pgdoc.identity IN EXCLUSIVE MODE;
  EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    NULL;
  END;
  INSERT INTO pgdoc.registry_commits (xid, at) VALUES (me, pg_current_wal_insert_lsn());
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER pgdoc_order AFTER INSERT OR UPDATE ON pgdoc.registry
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgdoc.order_commits();

-- An empty registry belongs to whatever database it is in.
CREATE FUNCTION pgdoc.is_bound() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
      SELECT FROM pgdoc.identity i, pg_control_system() s
      WHERE i.system_id = s.system_identifier AND i.registry_oid = 'pgdoc.registry'::regclass
        AND i.database_oid = (SELECT oid FROM pg_database WHERE datname = current_database()))
    OR NOT EXISTS (SELECT FROM pgdoc.registry)
$$;
COMMENT ON FUNCTION pgdoc.is_bound IS 'whether the registry belongs to this database, and not to one that it was copied or restored from';

CREATE FUNCTION pgdoc.check_bound() RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pgdoc.is_bound() THEN
    RAISE EXCEPTION 'the registry of collections belongs to another database: this one is a copy, or was restored from a dump'
      USING ERRCODE = 'PGD01', HINT = 'Run `pgdoc init` as the catalog''s owner, or SELECT pgdoc.rebind().';
  END IF;
END $$;


-- Why a table can't be a collection; NULL if it can.
CREATE FUNCTION pgdoc.form_fault(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.relkind <> 'r' OR c.relispartition OR EXISTS (
      SELECT FROM pg_inherits WHERE inhrelid = c.oid OR inhparent = c.oid) THEN 'it is not a plain table'
    WHEN c.relpersistence <> 'p' THEN 'it is temporary or unlogged'
    WHEN (SELECT count(*) < 6 FROM pg_attribute a
          WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attnotnull AND a.attgenerated = ''
            AND (a.attname = 'id' AND a.atttypid = 'text'::regtype
              OR a.attname = 'data' AND a.atttypid = 'jsonb'::regtype
              OR a.attname IN ('version', 'replaced_version') AND a.atttypid = 'bigint'::regtype AND a.atthasdef
              OR a.attname IN ('created_at', 'updated_at') AND a.atttypid = 'timestamptz'::regtype AND a.atthasdef))
      THEN 'it needs the columns id text, data jsonb, version bigint DEFAULT 1, replaced_version bigint DEFAULT 1, '
        'created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), all of them NOT NULL'
    WHEN NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id'
                     WHERE i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
      THEN 'its primary key is not the column id'
    WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 'v')
      THEN 'it has a virtual generated column, with which its updates would fail: declare the column STORED'
  END
  FROM pg_class c WHERE c.oid = relation
$$;
COMMENT ON FUNCTION pgdoc.form_fault IS 'why a table can not be a collection; NULL if it can';

-- Whether a table has what only its owner can give it: before images, the checks and the triggers.
CREATE FUNCTION pgdoc.is_equipped(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.relreplident = 'f' AND 2 = (
    SELECT count(*) FROM pg_constraint k
    WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.convalidated AND k.conname IN ('pgdoc_id', 'pgdoc_data')
  ) AND 2 = (
    SELECT count(*) FROM pg_trigger t
    WHERE t.tgrelid = c.oid AND t.tgenabled IN ('O', 'A') AND (
      t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
      OR t.tgname = 'pgdoc_after_insert' AND t.tgfoid = 'pgdoc.refuse_insert()'::regprocedure))
  FROM pg_class c WHERE c.oid = relation
$$;

-- The oid decides: where no event trigger follows DDL, the registry may not know a new name yet.
CREATE OR REPLACE FUNCTION pgdoc.is_collection(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.is_bound() AND EXISTS (
    SELECT FROM pgdoc.registry r
      JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
    WHERE r.oid = relation AND r.until IS NULL)
$$;
COMMENT ON FUNCTION pgdoc.is_collection IS 'whether a table is registered as a collection';

CREATE OR REPLACE FUNCTION pgdoc.collections(schema_name text) RETURNS SETOF text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_bound();
  RETURN QUERY
    SELECT c.relname::text FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
    WHERE r.until IS NULL AND n.nspname = collections.schema_name
    ORDER BY c.relname::text COLLATE "C";
END $$;

-- Returns NULL if there is no such table; fails if the table is not a collection.
CREATE OR REPLACE FUNCTION pgdoc.find_collection(schema_name text, name text) RETURNS regclass LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass := to_regclass(format('%I.%I', schema_name, name));
BEGIN
  IF relation IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM pgdoc.check_bound();
  IF pgdoc.is_collection(relation) THEN
    RETURN relation;
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN  -- to_regclass sees newer tables than the snapshot
    RAISE EXCEPTION 'the table %.% is newer than this transaction''s snapshot', schema_name, name
      USING ERRCODE = 'serialization_failure', HINT = 'Run the transaction again.';
  ELSE
    RAISE EXCEPTION 'table "%.%" is not a collection', schema_name, name
      USING ERRCODE = 'wrong_object_type',
        HINT = coalesce('Use another collection name: it can''t become one, because ' || pgdoc.form_fault(relation),
          format('Use another collection name, or make it one: SELECT pgdoc.register(%L)', relation::text));
  END IF;
END $$;

CREATE FUNCTION pgdoc.collection_oid(schema_name text, name text) RETURNS oid LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.find_collection(schema_name, name)::oid
$$;
COMMENT ON FUNCTION pgdoc.collection_oid IS 'the oid of a collection''s table; NULL if there is no such table';

-- Document calls compare the oid that they know with that of the table they name, and call this if the two differ.
CREATE FUNCTION pgdoc.refuse_table(schema_and_name text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'table % is not the collection that it was', schema_and_name USING ERRCODE = 'PGD02';
END $$;


-- Compares the registry with the catalog of PostgreSQL, and records what became of collections: dropped, renamed, moved to
-- another schema, or without its trigger. It states facts only. The DDL of the tables in `just_changed` has just run, and they
-- are still locked: nothing happened between it and this call. Others are looked at only with `all_others`: inside DDL, the DDL
-- around it may not have been followed yet. A row that another transaction is changing is left to that transaction.
CREATE FUNCTION pgdoc.follow(just_changed oid[], all_others boolean) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
  renamed oid[] := '{}';
  new_schemas text[] := '{}';
  new_names text[] := '{}';
BEGIN
  IF NOT pgdoc.is_bound() THEN
    RETURN;
  END IF;
  FOR was IN
    SELECT r.ctid, r.oid, r.schema_name, r.name, n.nspname::text AS new_schema, c.relname::text AS new_name,
      CASE
        WHEN c.oid IS NULL THEN 'drop'
        WHEN t.oid IS NULL THEN 'unregister'
        WHEN n.nspname <> r.schema_name THEN 'move'
        ELSE 'rename'
      END AS change
    FROM pgdoc.registry r LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'r'
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'
    WHERE r.until IS NULL AND (all_others OR r.oid = ANY (just_changed))
      AND (c.oid IS NULL OR t.oid IS NULL OR n.nspname <> r.schema_name OR c.relname <> r.name)
    ORDER BY r.schema_name, r.name
    FOR UPDATE OF r SKIP LOCKED
  LOOP
    UPDATE pgdoc.registry
    SET until = pg_current_wal_insert_lsn(), closed_by = was.change, closed_xid = pg_current_xact_id(), exact = exact AND was.oid = ANY (just_changed)
    WHERE ctid = was.ctid;
    IF was.change IN ('rename', 'move') THEN
      renamed := renamed || was.oid;
      new_schemas := new_schemas || was.new_schema;  -- a name read later may be the next one already
      new_names := new_names || was.new_name;
    END IF;
  END LOOP;
  IF cardinality(renamed) > 0 THEN  -- after all were closed: two collections may have exchanged their names
    INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by, from_name, exact)
    SELECT old.oid, now.schema_name, now.name, old.until, old.closed_by,
      CASE old.closed_by WHEN 'rename' THEN old.name END, old.oid = ANY (just_changed)
    FROM pgdoc.registry old JOIN unnest(renamed, new_schemas, new_names) AS now(oid, schema_name, name) ON now.oid = old.oid
    WHERE old.closed_xid = pg_current_xact_id()
      AND old.until = (SELECT max(r.until) FROM pgdoc.registry r WHERE r.oid = old.oid)
    ORDER BY old.schema_name, old.name;
  END IF;
END $$;

-- It states facts only, but its row locks last until the caller's transaction ends. So it does nothing for a role that neither
-- streams nor registers, and never waits: what another transaction is recording is left to the next call.
CREATE FUNCTION pgdoc.follow_tables() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = session_user AND (rolreplication OR rolsuper))
     OR has_function_privilege(session_user, 'pgdoc.enter_collection(regclass)', 'EXECUTE') THEN
    PERFORM pgdoc.follow('{}', true);
  END IF;
EXCEPTION WHEN lock_not_available OR deadlock_detected OR unique_violation THEN
  NULL;
END $$;
COMMENT ON FUNCTION pgdoc.follow_tables IS 'records in the registry what DDL has done to collections without being followed by an event trigger';

-- Whether follow_tables has something to do.
CREATE FUNCTION pgdoc.is_followed() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (
    SELECT FROM pgdoc.registry r LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'r'
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'
    WHERE r.until IS NULL
      AND (c.oid IS NULL OR t.oid IS NULL OR n.nspname <> r.schema_name OR c.relname <> r.name))
$$;

-- Rows that no stream can need: closed before everything that a slot of this database keeps.
CREATE FUNCTION pgdoc.prune_registry() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  oldest pg_lsn;
BEGIN
  SELECT coalesce(min(least(restart_lsn, confirmed_flush_lsn)), pg_current_wal_insert_lsn()) INTO oldest
  FROM pg_replication_slots WHERE database = current_database();
  DELETE FROM pgdoc.registry WHERE ctid IN (
    SELECT ctid FROM pgdoc.registry WHERE until < oldest ORDER BY until LIMIT 100 FOR UPDATE SKIP LOCKED);
  DELETE FROM pgdoc.registry_commits WHERE xid IN (
    SELECT c.xid FROM pgdoc.registry_commits c
    WHERE c.at < oldest AND NOT EXISTS (
      SELECT FROM pgdoc.registry r WHERE c.xid IN (r.opened_xid, r.closed_xid) AND (r.until IS NULL OR r.until >= oldest))
    ORDER BY c.at LIMIT 100 FOR UPDATE SKIP LOCKED);
END $$;


-- Locks a table that is known by its oid, while LOCK TABLE takes a name: a schema can be renamed in between.
CREATE FUNCTION pgdoc.lock_table(relation regclass, mode text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found text;
BEGIN
  FOR attempt IN 1 .. 10 LOOP
    found := relation::text;
    EXIT WHEN found ~ '^[0-9]+$';  -- it was dropped: this is its oid
    IF to_regclass(found) = relation THEN
      BEGIN
        EXECUTE format('LOCK TABLE ONLY %s IN %s MODE', found, mode);
        IF relation::text = found THEN
          RETURN;
        END IF;
      EXCEPTION WHEN undefined_table OR invalid_schema_name THEN
        NULL;
      END;
    END IF;
  END LOOP;
  RAISE EXCEPTION 'table % was dropped or renamed at the same time', relation
    USING ERRCODE = 'undefined_table', HINT = 'Run it again.';
END $$;

-- Adds a collection to the publication. The caller holds a lock on it that keeps writers away, and registers it afterwards:
-- what was written before is not a change of a collection.
CREATE OR REPLACE FUNCTION pgdoc.publish_collection(relation regclass, is_new boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_publication_owner();
  PERFORM pgdoc.lock_table(relation, 'SHARE ROW EXCLUSIVE');
  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = relation) THEN
    EXECUTE format('ALTER PUBLICATION pgdoc ADD TABLE ONLY %s', relation);
  END IF;
  INSERT INTO pgdoc.published
  SELECT r.oid, n.nspname, c.relname, CASE WHEN is_new THEN '0/0' ELSE pg_current_wal_insert_lsn() END
  FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE p.pubname = 'pgdoc' AND r.prrelid = relation
  ON CONFLICT (member) DO NOTHING;
END $$;

-- The half of `register` that has the rights of the catalog's owner. It believes only what an owner of the table alone can
-- have done, so calling it directly registers nothing that its owner has not equipped. With NULL it only takes the lock that
-- keeps schemas from being renamed: a registration runs DDL by the name of the table.
CREATE FUNCTION pgdoc.enter_collection(relation regclass) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fault text := pgdoc.form_fault(relation);
  address text[];
BEGIN
  LOCK TABLE pgdoc.registry IN ROW EXCLUSIVE MODE;
  IF relation IS NULL THEN
    RETURN;
  ELSIF fault IS NOT NULL OR pgdoc.is_equipped(relation) IS NOT TRUE THEN
    RAISE EXCEPTION 'table % can''t become a collection: %', relation, coalesce(fault, 'it lacks REPLICA IDENTITY FULL, the checks or the triggers')
      USING ERRCODE = 'wrong_object_type', HINT = format('As its owner, run: SELECT pgdoc.register(%L)', relation::text);
  ELSIF pgdoc.is_collection(relation) THEN
    RETURN;
  END IF;
  PERFORM pgdoc.check_bound();
  IF NOT EXISTS (SELECT FROM pgdoc.registry) THEN
    INSERT INTO pgdoc.identity (system_id, database_oid, registry_oid, messages_until)
    SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), 'pgdoc.registry'::regclass, '0/0'
    FROM pg_control_system()
    ON CONFLICT (only_row) DO UPDATE
    SET system_id = excluded.system_id, database_oid = excluded.database_oid, registry_oid = excluded.registry_oid,
      messages_until = '0/0'
    WHERE (identity.system_id, identity.database_oid, identity.registry_oid)
      <> (excluded.system_id, excluded.database_oid, excluded.registry_oid);
  END IF;
  PERFORM pgdoc.follow('{}', true);
  PERFORM pgdoc.prune_registry();
  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                   JOIN pgdoc.published known ON known.member = r.oid
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = relation) THEN
    BEGIN
      PERFORM pgdoc.publish_collection(relation, is_new => true);
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE EXCEPTION 'table % can''t be published: %', relation, SQLERRM
        USING ERRCODE = 'insufficient_privilege',
          HINT = (SELECT format('Run: GRANT %I TO %I', pg_get_userbyid(c.relowner), current_user) FROM pg_class c WHERE c.oid = relation);
    END;
  END IF;
  address := parse_ident(relation::text);  -- qualified, and fresh under any isolation level
  INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by)
  VALUES (relation, address[1], address[2], pg_current_wal_insert_lsn(), 'create');
END $$;

CREATE FUNCTION pgdoc.check_may_register() RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT has_function_privilege('pgdoc.enter_collection(regclass)', 'EXECUTE') THEN
    RAISE EXCEPTION 'role % may not register collections', current_user
      USING ERRCODE = 'insufficient_privilege', HINT = format(
        'As the catalog''s owner, run: GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO %I', current_user);
  END IF;
END $$;

CREATE FUNCTION pgdoc.register(relation regclass) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fault text := pgdoc.form_fault(relation);
BEGIN
  IF pgdoc.is_collection(relation) AND pgdoc.is_equipped(relation) THEN
    RETURN false;
  ELSIF fault IS NOT NULL THEN
    RAISE EXCEPTION 'table % can''t become a collection: %', relation, fault USING ERRCODE = 'wrong_object_type';
  END IF;
  PERFORM pgdoc.check_bound();
  PERFORM pgdoc.check_may_register();
  PERFORM pgdoc.enter_collection(NULL);
  PERFORM pgdoc.lock_table(relation, 'ACCESS EXCLUSIVE');
  PERFORM pgdoc.equip_collection(relation);
  IF (SELECT pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = 'pgdoc') THEN
    PERFORM pgdoc.publish_collection(relation, is_new => true);  -- as a role that owns the table and the publication
  END IF;
  PERFORM pgdoc.enter_collection(relation);
  RETURN true;
END $$;
COMMENT ON FUNCTION pgdoc.register IS 'makes a table of the right form a collection; returns false if it is one';

-- What only the table's owner can do. REPLICA IDENTITY is always set: that proves the ownership.
CREATE OR REPLACE FUNCTION pgdoc.equip_collection(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  missing record;
BEGIN
  EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', relation);
  FOR missing IN
    SELECT wanted.name, wanted.condition
    FROM (VALUES ('pgdoc_id', 'octet_length(id) BETWEEN 1 AND 1024'),
                 ('pgdoc_data', 'jsonb_typeof(data) = ''object'' AND NOT data ? ''_id''')) AS wanted(name, condition)
    WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = relation AND k.contype = 'c' AND k.conname = wanted.name)
  LOOP
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s)', relation, missing.name, missing.condition);
  END LOOP;
  EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_before_update BEFORE UPDATE ON %s '
    'FOR EACH ROW EXECUTE FUNCTION pgdoc.before_update()', relation);
  EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgdoc_before_update', relation);
  EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_after_insert AFTER INSERT ON %s FOR EACH ROW '
    'WHEN (NEW.version <> 1 OR NEW.replaced_version <> 1 OR NEW.created_at <> now() OR NEW.updated_at <> now()) '
    'EXECUTE FUNCTION pgdoc.refuse_insert()', relation);
END $$;

-- Locks a collection for DDL, and records what was done to it before. Another session may be recording just that: what it does
-- takes milliseconds, so this waits for it, but for no more than a second, since nothing keeps it from staying in its transaction.
CREATE FUNCTION pgdoc.lock_followed(relation regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.lock_table(relation, 'ACCESS EXCLUSIVE');
  FOR attempt IN 1 .. 100 LOOP
    PERFORM pgdoc.follow_tables();
    EXIT WHEN NOT EXISTS (
      SELECT FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE r.oid = relation AND r.until IS NULL AND (n.nspname <> r.schema_name OR c.relname <> r.name));
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;

-- Dropping the triggers makes it a plain table; that needs its owner.
CREATE FUNCTION pgdoc.unregister(relation regclass) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was_collection boolean := pgdoc.is_collection(relation);
BEGIN
  PERFORM pgdoc.lock_followed(relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_after_insert ON %s', relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_before_update ON %s', relation);
  IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = 'pgdoc' AND r.prrelid = relation AND pg_has_role(p.pubowner, 'USAGE')) THEN
    EXECUTE format('ALTER PUBLICATION pgdoc DROP TABLE %s', relation);
  END IF;
  PERFORM pgdoc.follow_own_ddl(relation);
  RETURN was_collection;
END $$;
COMMENT ON FUNCTION pgdoc.unregister IS 'makes a collection a plain table, and keeps its rows; returns false if it was none';

-- Records the DDL that the caller has just run, where no event trigger has done so.
CREATE FUNCTION pgdoc.follow_own_ddl(changed oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF has_function_privilege('pgdoc.follow(oid[], boolean)', 'EXECUTE') THEN
    PERFORM pgdoc.follow(ARRAY[changed], false);
  ELSE
    PERFORM pgdoc.follow_tables();
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.create_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
BEGIN
  FOR attempt IN 1 .. 5 LOOP
    BEGIN
      IF pgdoc.find_collection(schema_name, name) IS NOT NULL THEN
        RETURN false;
      END IF;
      PERFORM pgdoc.check_may_register();
      IF to_regnamespace(quote_ident(schema_name)) IS NULL THEN
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', schema_name);
      END IF;
      EXECUTE format(
        'CREATE TABLE %I.%I ('
        '  id text COLLATE "C" PRIMARY KEY CONSTRAINT pgdoc_id CHECK (octet_length(id) BETWEEN 1 AND 1024),'
        '  data jsonb NOT NULL CONSTRAINT pgdoc_data CHECK (jsonb_typeof(data) = ''object'' AND NOT data ? ''_id''),'
        '  version bigint NOT NULL DEFAULT 1,'
        '  replaced_version bigint NOT NULL DEFAULT 1,'
        '  created_at timestamptz NOT NULL DEFAULT now(),'
        '  updated_at timestamptz NOT NULL DEFAULT now())', schema_name, name);
      EXIT;
    EXCEPTION WHEN duplicate_table OR duplicate_schema OR unique_violation OR serialization_failure THEN
      -- Another session creates the same one. Under READ COMMITTED the next attempt sees it.
      IF attempt = 5 OR SQLSTATE = '40001' AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE;
      END IF;
    END;
  END LOOP;
  RETURN pgdoc.register(to_regclass(format('%I.%I', schema_name, name)));
END $$;

CREATE OR REPLACE FUNCTION pgdoc.drop_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, name);
BEGIN
  IF relation IS NOT NULL THEN
    PERFORM pgdoc.lock_followed(relation);
    EXECUTE format('DROP TABLE %s', relation);
    PERFORM pgdoc.follow_own_ddl(relation);
  END IF;
  RETURN relation IS NOT NULL;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.rename_collection(schema_name text, old_name text, new_name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, old_name);
BEGIN
  IF relation IS NOT NULL THEN
    PERFORM pgdoc.lock_followed(relation);
    EXECUTE format('ALTER TABLE %s RENAME TO %I', relation, new_name);
    PERFORM pgdoc.follow_own_ddl(relation);
  END IF;
  RETURN relation IS NOT NULL;
END $$;

-- Makes this database the registry's own. Each collection that has a table of the right form and name is registered again,
-- from now on; what the registry said about the past of another database is deleted.
CREATE FUNCTION pgdoc.rebind() RETURNS text[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
  schemas text[];
  names text[];
  relation regclass;
  fault text;
  found text[] := '{}';
BEGIN
  IF pgdoc.is_bound() THEN
    RETURN found;
  END IF;
  SELECT array_agg(schema_name ORDER BY schema_name, name), array_agg(name ORDER BY schema_name, name)
  INTO schemas, names FROM pgdoc.registry WHERE until IS NULL;
  DELETE FROM pgdoc.registry;
  DELETE FROM pgdoc.registry_commits;
  DELETE FROM pgdoc.identity;
  DELETE FROM pgdoc.published;
  INSERT INTO pgdoc.published
  SELECT oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication WHERE pubname = 'pgdoc';
  IF (SELECT to_jsonb(p) ->> 'pubgencols' = 'n' FROM pg_publication p WHERE p.pubname = 'pgdoc') THEN  -- pg_upgrade to PostgreSQL 18
    EXECUTE 'ALTER PUBLICATION pgdoc SET (publish_generated_columns = stored)';
  END IF;
  FOR was IN SELECT * FROM unnest(schemas, names) AS collection(schema_name, name) LOOP
    relation := to_regclass(format('%I.%I', was.schema_name, was.name));
    fault := CASE WHEN relation IS NULL THEN 'its table does not exist' ELSE pgdoc.form_fault(relation) END;
    IF fault IS NULL THEN
      BEGIN
        PERFORM pgdoc.register(relation);
        found := found || relation::text;
      EXCEPTION WHEN insufficient_privilege OR check_violation THEN  -- one table keeps no other from being registered
        fault := SQLERRM;
      END;
    END IF;
    IF fault IS NOT NULL THEN
      RAISE WARNING 'collection %.% is not registered again: %', was.schema_name, was.name, fault;
    END IF;
  END LOOP;
  RETURN found;
END $$;
COMMENT ON FUNCTION pgdoc.rebind IS 'registers the collections of a copied or restored database as its own; returns their tables';

-- Which of these collections exist for a stream that resumes at a position. `was` is the answer before those changes that
-- the last registry transaction before `commit_lsn` made beyond `lsn`: they count only if the position is inside of it.
-- There are no rows for a position from before the registry existed.
CREATE FUNCTION pgdoc.existed(in_schema text, names text[], commit_lsn pg_lsn, lsn pg_lsn)
RETURNS TABLE (name text, is_there boolean, was_there boolean) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  WITH last AS (SELECT max(at) AS at FROM pgdoc.registry_commits WHERE at < commit_lsn),
  spans AS (
    SELECT r.name, r.since, r.until,
      coalesce(opened.at, r.since) AS opened_at, coalesce(closed.at, r.until) AS closed_at
    FROM pgdoc.registry r
      LEFT JOIN pgdoc.registry_commits opened ON opened.xid = r.opened_xid AND r.since > '0/0'
      LEFT JOIN pgdoc.registry_commits closed ON closed.xid = r.closed_xid
    WHERE r.schema_name = in_schema AND r.name = ANY (names)
  )
  SELECT wanted.name, now.is_there, now.was_there
  FROM unnest(names) AS wanted(name), last, LATERAL (
    SELECT
      coalesce(bool_or(s.closed_at IS NULL OR s.closed_at >= commit_lsn), false),
      coalesce(bool_or(NOT (s.opened_at = last.at AND s.since > existed.lsn)
        AND (s.closed_at IS NULL OR s.closed_at >= commit_lsn OR s.closed_at = last.at AND s.until > existed.lsn)), false)
    FROM spans s WHERE s.name = wanted.name AND s.opened_at < commit_lsn
  ) AS now(is_there, was_there)
  WHERE NOT EXISTS (SELECT FROM pgdoc.identity WHERE messages_until > commit_lsn)
$$;

-- The LSN since which the registry knew at once what SQL did to these collections, or to all of a schema.
CREATE FUNCTION pgdoc.exact_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(max(coalesce(until, since)), '0/0') FROM pgdoc.registry
  WHERE NOT exact AND schema_name = in_schema AND (names IS NULL OR name = ANY (names))
$$;


-- The collections of a schema that the publication lacks, or holds since an unknown LSN.
CREATE OR REPLACE FUNCTION pgdoc.unpublished(schema_name text) RETURNS SETOF regclass LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass
  FROM pgdoc.registry g JOIN pg_class c ON c.oid = g.oid
  WHERE g.until IS NULL AND g.schema_name = unpublished.schema_name AND g.oid NOT IN (
    SELECT r.prrelid FROM pg_publication_rel r
    WHERE r.prpubid = (SELECT oid FROM pg_publication WHERE pubname = 'pgdoc')
      AND r.oid IN (SELECT member FROM pgdoc.published))
  ORDER BY c.relname
$$;

-- Why pgoutput can't serve a stream on these collections, or on all of a schema. A collection that nobody asked for is no fault.
DROP FUNCTION pgdoc.publication_fault(text);
CREATE FUNCTION pgdoc.publication_fault(schema_name text, names text[] DEFAULT NULL) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN p.oid IS NULL THEN 'does not exist: run CREATE PUBLICATION pgdoc'
    WHEN NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate)
      THEN 'does not publish every kind of change: run ALTER PUBLICATION pgdoc SET (publish = ''insert, update, delete, truncate'')'
    WHEN EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL))
      THEN 'leaves out rows or columns: drop those tables from it and run SELECT pgdoc.publish(''' || schema_name || ''')'
    WHEN NOT EXISTS (SELECT FROM pgdoc.published WHERE member = p.oid)
      THEN 'was re-created: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    WHEN NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = 'pgdoc.registry'::regclass)
      THEN 'lacks pgdoc.registry: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    WHEN to_jsonb(p) ->> 'pubgencols' = 'n'
      THEN 'leaves out generated columns: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    ELSE (SELECT 'lacks ' || string_agg(relation::text, ', ') || ': run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
          FROM pgdoc.unpublished(schema_name) AS relation
          WHERE names IS NULL OR EXISTS (SELECT FROM pg_class c WHERE c.oid = relation AND c.relname = ANY (names)))
  END
  FROM (SELECT) AS one LEFT JOIN pg_publication p ON p.pubname = 'pgdoc'
$$;

CREATE OR REPLACE FUNCTION pgdoc.publish(schema_name text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  relation regclass;
BEGIN
  PERFORM pgdoc.check_publication_owner();
  INSERT INTO pgdoc.published SELECT oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication WHERE pubname = 'pgdoc'
  ON CONFLICT (member) DO NOTHING;
  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = 'pgdoc.registry'::regclass) THEN
    ALTER PUBLICATION pgdoc ADD TABLE pgdoc.registry;
    INSERT INTO pgdoc.published
    SELECT r.oid, '', 'pgdoc.registry', pg_current_wal_insert_lsn()
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = 'pgdoc' AND r.prrelid = 'pgdoc.registry'::regclass;
  END IF;
  IF (SELECT to_jsonb(p) ->> 'pubgencols' = 'n' FROM pg_publication p WHERE p.pubname = 'pgdoc') THEN  -- PostgreSQL 18
    EXECUTE 'ALTER PUBLICATION pgdoc SET (publish_generated_columns = stored)';
  END IF;
  FOR relation IN SELECT pgdoc.unpublished(schema_name) LOOP
    PERFORM pgdoc.publish_collection(relation);
  END LOOP;
  DELETE FROM pgdoc.published WHERE member IN (  -- rows of dropped collections that restrict nothing
    SELECT p.member FROM pgdoc.published p
    WHERE p.since = '0/0' AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.oid = p.member)
    FOR UPDATE SKIP LOCKED);
  RETURN pgdoc.publication_fault(schema_name);
END $$;

CREATE OR REPLACE FUNCTION pgdoc.check_publication_owner() RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  publication_owner name;
BEGIN
  SELECT pg_get_userbyid(pubowner) INTO publication_owner FROM pg_publication WHERE pubname = 'pgdoc';
  IF publication_owner IS NULL THEN
    RAISE EXCEPTION 'the publication "pgdoc" does not exist'
      USING ERRCODE = 'undefined_object', HINT = 'Run: CREATE PUBLICATION pgdoc';
  ELSIF NOT pg_has_role(publication_owner, 'USAGE') THEN
    RAISE EXCEPTION 'role % cannot change the publication "pgdoc", which role % owns', current_user, publication_owner
      USING ERRCODE = 'insufficient_privilege', HINT = format('Run it as %I.', publication_owner);
  END IF;
END $$;


-- Logical messages told of collections before, and any role can send one.
DROP FUNCTION pgdoc.announce_drops(), pgdoc.remember_names(), pgdoc.announce_renames(), pgdoc.publish_tables() CASCADE;
DROP FUNCTION pgdoc.follow_ddl(), pgdoc.announce(text, text, text, text);

-- Whether the event triggers of event_triggers.sql are there and enabled: then DDL in SQL is followed at once.
CREATE OR REPLACE FUNCTION pgdoc.follows_ddl() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) = 2 FROM pg_event_trigger WHERE evtname IN ('pgdoc_drops', 'pgdoc_alters') AND evtenabled IN ('O', 'A')
$$;

REVOKE ALL ON FUNCTION pgdoc.order_commits(), pgdoc.follow(oid[], boolean), pgdoc.prune_registry(),
  pgdoc.enter_collection(regclass), pgdoc.publish_collection(regclass, boolean), pgdoc.rebind() FROM PUBLIC;
GRANT SELECT ON pgdoc.identity, pgdoc.registry, pgdoc.registry_commits TO PUBLIC;

ALTER PUBLICATION pgdoc ADD TABLE pgdoc.registry;
INSERT INTO pgdoc.published
SELECT r.oid, 'pgdoc', 'registry', '0/0'
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE p.pubname = 'pgdoc' AND r.prrelid = 'pgdoc.registry'::regclass;

-- Without it, PostgreSQL 18 refuses every UPDATE and DELETE of a published table that has a generated column.
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 180000 THEN
    ALTER PUBLICATION pgdoc SET (publish_generated_columns = stored);
  END IF;
END $$;

-- Registers the tables that were collections so far. The locks keep collections from being created, renamed or dropped until
-- this commits, so that what the messages before `messages_until` and the registry tell is the whole truth.
DO $$
DECLARE
  old record;
  fault text;
BEGIN
  LOCK TABLE pgdoc.published IN SHARE ROW EXCLUSIVE MODE;
  FOR old IN
    SELECT c.oid::regclass AS relation, n.nspname, c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relpersistence = 'p' AND 6 = (
      SELECT count(*) FROM pg_attribute a
      WHERE a.attrelid = c.oid AND NOT a.attisdropped AND (a.attname, a.atttypid) IN (
        ('id', 'text'::regtype), ('data', 'jsonb'::regtype), ('version', 'bigint'::regtype),
        ('replaced_version', 'bigint'::regtype), ('created_at', 'timestamptz'::regtype),
        ('updated_at', 'timestamptz'::regtype)))
    ORDER BY n.nspname, c.relname
  LOOP
    BEGIN
      PERFORM pgdoc.lock_table(old.relation, 'ACCESS SHARE');
      fault := pgdoc.form_fault(old.relation);
      IF fault IS NULL AND NOT pgdoc.is_equipped(old.relation) THEN
        PERFORM pgdoc.equip_collection(old.relation);
      END IF;
      IF fault IS NULL THEN
        PERFORM pgdoc.publish_collection(old.relation)
        WHERE NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pgdoc.published p ON p.member = r.oid
                          WHERE r.prrelid = old.relation);
      END IF;
    EXCEPTION
      WHEN lock_not_available OR deadlock_detected THEN
        RAISE;
      WHEN OTHERS THEN  -- no table of another role may stop the upgrade
        fault := SQLERRM;
    END;
    IF fault IS NULL THEN
      INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by)
      VALUES (old.relation, old.nspname, old.relname, '0/0', 'create');
      RAISE NOTICE 'registered the collection %', old.relation;
    ELSE
      RAISE WARNING 'table % is not a collection any more: %', old.relation, fault;
    END IF;
  END LOOP;
  INSERT INTO pgdoc.identity (system_id, database_oid, registry_oid, messages_until)
  SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), 'pgdoc.registry'::regclass,
    pg_current_wal_insert_lsn()
  FROM pg_control_system();
END $$;
