-- Tables that are no collections and are watched as they are. The registry has them beside the collections: a span for each
-- name and each shape that such a table has or had.

-- Rows of the registry that this transaction has written would keep it from being altered.
SET CONSTRAINTS pgdoc.pgdoc_order IMMEDIATE;
SET CONSTRAINTS pgdoc.pgdoc_order DEFERRED;

ALTER TABLE pgdoc.registry
  ADD COLUMN kind     text NOT NULL DEFAULT 'collection' CHECK (kind IN ('collection', 'table')),
  ADD COLUMN key      text[],
  ADD COLUMN document text,
  ADD COLUMN columns  jsonb,
  ADD COLUMN print    text,
  ADD COLUMN former_identity text CHECK (former_identity ~ '^([dn]|i:.+)$'),
  DROP CONSTRAINT registry_opened_by_check,
  DROP CONSTRAINT registry_closed_by_check,
  ADD CONSTRAINT registry_opened_by_check CHECK (opened_by IN ('create', 'rename', 'move', 'alter')),
  ADD CONSTRAINT registry_closed_by_check CHECK (closed_by IN ('drop', 'rename', 'move', 'alter', 'unregister')),
  ADD CONSTRAINT registry_shape_check CHECK (kind = 'collection' OR key IS NOT NULL AND columns IS NOT NULL AND print IS NOT NULL);
COMMENT ON COLUMN pgdoc.registry.kind IS '`table` for a table that is watched as it is';
COMMENT ON COLUMN pgdoc.registry.key IS 'the columns of a table''s primary key, in the order of its index';
COMMENT ON COLUMN pgdoc.registry.document IS 'the column of a table that its events have as their document; NULL for the whole row';
COMMENT ON COLUMN pgdoc.registry.columns IS 'the columns of a table that its events have, in order: name, type and form';
COMMENT ON COLUMN pgdoc.registry.print IS 'see pgdoc.table_prints';
COMMENT ON COLUMN pgdoc.registry.former_identity IS 'the replica identity that add_table changed: `d` (DEFAULT), `n` (NOTHING) or `i:` and the name of an index; NULL for FULL';

-- These functions are in plpgsql, which keeps their plans: SQL functions without a plan of their own take ten times as long.

-- How the JSON of a value is made from its output text: `text`, `number`, `bool`, `json`, `timestamp`, `timestamptz`,
-- `int2vector` or `oidvector`; for an array, that of its elements and the delimiter in brackets. A domain has the form of its
-- base type. A composite type has `text`, as has an array of composites: their structure is not in the WAL.
CREATE FUNCTION pgdoc.type_form(type oid) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off AS $$
BEGIN
  RETURN (
    WITH RECURSIVE base AS (
      SELECT t.* FROM pg_type t WHERE t.oid = type_form.type
      UNION ALL
      SELECT t.* FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
    ), element AS (
      SELECT e.*, b.typdelim AS delimiter
      FROM base b JOIN pg_type e ON e.oid = b.typelem
      WHERE b.typtype <> 'd' AND b.typlen = -1 AND b.typsubscript = 'array_subscript_handler'::regproc
        AND b.oid NOT IN ('int2vector'::regtype, 'oidvector'::regtype)
      UNION ALL
      SELECT t.*, e.delimiter FROM element e JOIN pg_type t ON t.oid = e.typbasetype WHERE e.typtype = 'd'
    ), found AS (
      SELECT oid, typtype, format('[%s]', delimiter) AS brackets FROM element WHERE typtype <> 'd'
      UNION ALL
      SELECT oid, typtype, '' FROM base WHERE typtype <> 'd' AND NOT EXISTS (SELECT FROM element)
    )
    SELECT coalesce((
      SELECT CASE
        WHEN typtype = 'c' OR brackets <> '' AND EXISTS (  -- a domain over an array
          SELECT FROM pg_type e WHERE e.oid = found.oid AND e.typlen = -1 AND e.typsubscript = 'array_subscript_handler'::regproc
            AND e.oid NOT IN ('int2vector'::regtype, 'oidvector'::regtype)) THEN 'text'
        ELSE CASE
          WHEN oid = 'bool'::regtype THEN 'bool'
          WHEN oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype, 'numeric'::regtype)
            THEN 'number'
          WHEN oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
          WHEN oid = 'timestamp'::regtype THEN 'timestamp'
          WHEN oid = 'timestamptz'::regtype THEN 'timestamptz'
          WHEN oid IN ('int2vector'::regtype, 'oidvector'::regtype) THEN oid::regtype::text
          ELSE 'text'
        END || brackets
      END
      FROM found), 'text')
  );
END $$;
COMMENT ON FUNCTION pgdoc.type_form IS 'how the JSON of a value of this type is made from its text';

-- Generated columns are left out: neither every server nor every plugin sends them. The names of types must be the same for
-- every role, or its session would find that the table had changed.
CREATE FUNCTION pgdoc.table_columns(relation regclass) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off AS $$
BEGIN
  RETURN (
    SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
      'form', pgdoc.type_form(a.atttypid)) ORDER BY a.attnum), '[]')
    FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  );
END $$;

CREATE FUNCTION pgdoc.table_key(relation regclass) RETURNS text[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT array_agg(a.attname::text ORDER BY k.place)
    FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_attribute a
    WHERE i.indrelid = relation AND i.indisprimary AND k.place <= i.indnkeyatts AND a.attrelid = relation AND a.attnum = k.attnum
  );
END $$;

-- What differs for two shapes of a table, and is cheap to compute for many tables. Whatever makes a table unfit for watching, apart from the
-- name of its schema, changes it, too.
CREATE FUNCTION pgdoc.table_prints(relations oid[]) RETURNS TABLE (oid oid, print text) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid, md5(concat_ws(chr(10), c.relpersistence, p.indimmediate, (string_to_array(p.indkey::text, ' '))[1:p.indnkeyatts], (
    SELECT string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated), chr(10) ORDER BY a.attnum)
    FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 's')))
  FROM pg_class c LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
  WHERE c.oid = ANY (relations)
$$;

-- Why a table can't be watched as it is, and what to do about it; NULL if it can. `document` is the column that its events
-- shall have as their document.
CREATE FUNCTION pgdoc.table_fault(relation regclass, document text DEFAULT NULL) RETURNS text[] LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT CASE
      WHEN c.relkind = 'p' THEN ARRAY['it is a partitioned table', 'add each of its partitions, such as ' || coalesce(
        (SELECT t.relid::text FROM pg_partition_tree(c.oid) AS t WHERE t.isleaf AND t.relid <> c.oid::regclass ORDER BY t.relid::text LIMIT 1), 'those to come')]
      WHEN c.relkind = 'v' THEN ARRAY['it is a view', 'add the tables that it reads']
      WHEN c.relkind = 'm' THEN ARRAY['it is a materialized view', 'add the tables that it reads']
      WHEN c.relkind = 'f' THEN ARRAY['it is a foreign table, and its changes are in the WAL of another server', 'watch it there']
      WHEN c.relkind <> 'r' THEN ARRAY['it is not a table', 'name a table']
      WHEN c.relpersistence = 't' THEN ARRAY['it is temporary, and its changes are not in the WAL', 'create it without TEMPORARY']
      WHEN c.relpersistence = 'u' THEN ARRAY['it is unlogged, and its changes are not in the WAL', format('run ALTER TABLE %s SET LOGGED', c.oid::regclass)]
      WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pgdoc', 'pg_toast')
        THEN ARRAY['it belongs to the system, or to pgdoc itself', 'name a table of your own']
      WHEN strpos(n.nspname, '.') > 0 THEN ARRAY['its schema has a dot in its name, which would make names of events ambiguous', 'rename the schema']
      WHEN EXISTS (SELECT FROM pgdoc.registry r JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update'
                   WHERE r.oid = c.oid AND r.until IS NULL AND r.kind = 'collection')
        THEN ARRAY['it is a collection', 'watch it by its name']
      WHEN p.indexrelid IS NULL THEN ARRAY['it has no primary key, which identifies a row', format('run ALTER TABLE %s ADD PRIMARY KEY (...)', c.oid::regclass)]
      WHEN NOT p.indimmediate
        THEN ARRAY['its primary key is deferrable, so two rows may have the same key for a moment', 'make it NOT DEFERRABLE']
      WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 'v')
        THEN ARRAY['it has a virtual generated column, with which its updates would fail', 'declare the column STORED']
      WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (p.indkey) AND a.attgenerated <> '')
        THEN ARRAY['its primary key has a generated column, which is not in every stream', 'make another key the primary one']
      WHEN document IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = document
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
        THEN ARRAY[format('it has no column "%s" for the document', document), 'name one of type jsonb or json']
      WHEN document IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = document
          AND pgdoc.type_form(a.atttypid) = 'json')
        THEN ARRAY[format('its column "%s" has neither the type jsonb nor json', document), 'name one that has']
    END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
    WHERE c.oid = relation
  );
END $$;
COMMENT ON FUNCTION pgdoc.table_fault IS 'why a table can not be watched as it is, and what to do about it; NULL if it can';

-- Which publication makes each UPDATE and DELETE of a table with REPLICA IDENTITY FULL fail, and what to do about it; NULL if none
-- does. PostgreSQL would let this happen: it checks a publication only when a row is updated.
CREATE FUNCTION pgdoc.publication_conflict(relation regclass) RETURNS text[] LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    WITH level AS (  -- a publication of a partitioned table counts for its partitions, too
      SELECT relation::oid AS oid UNION SELECT a.relid FROM pg_partition_ancestors(relation) AS a
    )
    SELECT found.conflict FROM (
      SELECT p.pubname, ARRAY[
        format('the publication "%s" leaves out columns of it, and with REPLICA IDENTITY FULL its updates would fail', p.pubname),
        format('publish all columns: take the table out of %I, and add it without a column list', p.pubname)] AS conflict
      FROM pg_publication_rel r JOIN level ON level.oid = r.prrelid JOIN pg_publication p ON p.oid = r.prpubid
      WHERE r.prattrs IS NOT NULL AND (p.pubupdate OR p.pubdelete) AND (r.prrelid = relation OR p.pubviaroot)
      UNION ALL
      SELECT p.pubname, ARRAY[
        format('the publication "%s" leaves out its generated columns, and with REPLICA IDENTITY FULL its updates would fail', p.pubname),
        format('run ALTER PUBLICATION %I SET (publish_generated_columns = stored)', p.pubname)]
      FROM pg_publication p
      WHERE to_jsonb(p) ->> 'pubgencols' = 'n' AND (p.pubupdate OR p.pubdelete)  -- PostgreSQL 18
        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attgenerated <> '' AND NOT a.attisdropped)
        AND (p.puballtables OR p.pubname = 'pgdoc'
          OR EXISTS (SELECT FROM pg_publication_rel r JOIN level ON level.oid = r.prrelid WHERE r.prpubid = p.oid)
          OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid JOIN level ON level.oid = c.oid
                     WHERE s.pnpubid = p.oid))
    ) AS found
    ORDER BY found.pubname LIMIT 1
  );
END $$;
COMMENT ON FUNCTION pgdoc.publication_conflict IS 'which publication would make updates of a watched table fail, and what to do about it; NULL if none would';

CREATE FUNCTION pgdoc.is_table(relation regclass) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.is_bound() AND EXISTS (SELECT FROM pgdoc.registry r WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'table')
$$;
COMMENT ON FUNCTION pgdoc.is_table IS 'whether a table is watched as it is';

CREATE FUNCTION pgdoc.tables() RETURNS TABLE (schema_name text, name text, document text, key text[], columns jsonb, since pg_lsn)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_bound();
  RETURN QUERY
    SELECT n.nspname::text, c.relname::text, r.document, r.key, r.columns, r.since
    FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.until IS NULL AND r.kind = 'table'
    ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C";
END $$;
COMMENT ON FUNCTION pgdoc.tables IS 'the tables that are watched as they are';

CREATE FUNCTION pgdoc.is_published(relation oid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pgdoc.published known ON known.member = r.oid
    WHERE p.pubname = 'pgdoc' AND r.prrelid = relation)
$$;
COMMENT ON FUNCTION pgdoc.is_published IS 'whether the publication "pgdoc" has the table, since an LSN that is known';

-- A fault is a reason, and what to do about it.
CREATE FUNCTION pgdoc.refuse_watching(relation regclass, fault text[]) RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION 'table % can''t be watched: %', relation, fault[1] USING ERRCODE = 'PGD05', HINT = fault[2];
  END IF;
END $$;

-- Inside a SECURITY DEFINER function, `current_user` is another role. So this asks for the role that logged in, and for those
-- that it can become by SET ROLE. That role may be running code of another one: ANALYZE, by a superuser or by autovacuum, calls
-- the functions of indexes. PostgreSQL refuses deferred triggers there, so those who rely on this make the registry's one deferred.
CREATE FUNCTION pgdoc.check_owner_of(relation regclass) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = relation);
BEGIN
  IF NOT pg_has_role(session_user, owner, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'USAGE, SET' END) THEN
    RAISE EXCEPTION 'role % is not the owner of table %', session_user, relation
      USING ERRCODE = 'insufficient_privilege', HINT = format('Run it as %I.', owner);
  END IF;
END $$;

-- The sessions whose locks on a table are in the way of a lock, and since when their transactions run. The pid is NULL for a
-- prepared transaction.
CREATE FUNCTION pgdoc.lock_holders(relation regclass, mode text) RETURNS TABLE (pid int, role text, held text, since timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.pid, CASE WHEN l.pid IS NULL THEN 'a prepared transaction' ELSE coalesce(a.usename::text, a.backend_type, 'another process') END,
    upper(regexp_replace(replace(l.mode, 'Lock', ''), '(?<=[a-z])([A-Z])', ' \1', 'g')), a.xact_start
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  WHERE l.locktype = 'relation' AND l.relation = lock_holders.relation AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND (lock_holders.mode = 'ACCESS EXCLUSIVE' OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
  ORDER BY a.xact_start, l.pid
$$;
COMMENT ON FUNCTION pgdoc.lock_holders IS 'the sessions whose locks on a table are in the way of a lock on it';

-- While a session waits for such a lock, all others that use the table wait behind it. So this waits for some moments, with
-- pauses, and no longer than two seconds at a time. Autovacuum gives way after one (deadlock_timeout).
CREATE FUNCTION pgdoc.lock_patiently(relation regclass, mode text, most_ms int DEFAULT 7000) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
  wait_ms int := least(100, most_ms);
  waited_ms int := 0;
BEGIN
  LOOP
    BEGIN
      PERFORM set_config('lock_timeout', wait_ms || 'ms', true);
      PERFORM pgdoc.lock_table(relation, mode);
      RETURN;
    EXCEPTION WHEN lock_not_available THEN
      waited_ms := waited_ms + wait_ms;
    END;
    IF waited_ms >= most_ms THEN
      RAISE EXCEPTION 'table % is locked by other transactions: %', relation, coalesce((
          SELECT string_agg(coalesce('pid ' || h.pid || ' of ', '') || h.role, ', ' ORDER BY h.since, h.pid)
          FROM (SELECT * FROM pgdoc.lock_holders(relation, mode) LIMIT 5) AS h), 'they have just ended')
        USING ERRCODE = 'lock_not_available', HINT = 'Run it again when they have ended.';
    END IF;
    PERFORM pg_sleep(wait_ms / 1000.0);
    wait_ms := least(wait_ms * 2, 2000);
  END LOOP;
END $$;

-- Under REPEATABLE READ, a query sees a table as it was before the lock that the transaction has on it now. A row of the
-- catalog that another transaction has replaced since then has its xid.
CREATE FUNCTION pgdoc.check_snapshot_of(relation regclass) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  current bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
  replaced bigint;
BEGIN
  IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
    RETURN;
  END IF;
  FOR replaced IN
    SELECT xmax::text::bigint FROM pg_class WHERE oid = relation AND xmax <> '0'
    UNION SELECT xmax::text::bigint FROM pg_attribute WHERE attrelid = relation AND xmax <> '0'
    UNION SELECT xmax::text::bigint FROM pg_index WHERE indrelid = relation AND xmax <> '0'
  LOOP
    replaced := current + ((replaced - current) % 4294967296 + 6442450944) % 4294967296 - 2147483648;  -- the nearest with these 32 bits
    IF pg_xact_status(replaced::text::xid8) = 'committed' THEN
      RAISE EXCEPTION 'table % was changed after this transaction took its snapshot', relation
        USING ERRCODE = 'serialization_failure', HINT = 'Run the transaction again.';
    END IF;
  END LOOP;
END $$;

-- The half of `add_table` that has the rights of the catalog's owner. It believes nothing that it does not see: it is called by
-- the table's owner, and the table has before images. With NULL it takes the lock, as `enter_collection`
-- does, and records what became of other tables.
CREATE FUNCTION pgdoc.enter_table(relation regclass, document text, former_identity text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.enter_collection(NULL);
  PERFORM pgdoc.check_bound();
  IF relation IS NULL THEN  -- what takes long is done before the table is locked
    PERFORM pgdoc.follow('{}', true);
    PERFORM pgdoc.prune_registry();
    RETURN;
  END IF;
  PERFORM pgdoc.check_snapshot_of(relation);
  PERFORM pgdoc.check_owner_of(relation);
  SET CONSTRAINTS pgdoc.pgdoc_order DEFERRED;
  PERFORM pgdoc.lock_table(relation, 'SHARE ROW EXCLUSIVE');  -- each transaction that wrote to it has ended
  PERFORM pgdoc.check_snapshot_of(relation);
  PERFORM pgdoc.refuse_watching(relation, coalesce(pgdoc.table_fault(relation, document), pgdoc.publication_conflict(relation),
    (SELECT ARRAY['it lacks REPLICA IDENTITY FULL', format('run SELECT pgdoc.add_table(%L)', relation::text)]
     FROM pg_class WHERE oid = relation AND relreplident <> 'f')));
  PERFORM pgdoc.claim_registry();
  PERFORM pgdoc.follow(ARRAY[relation], false);
  IF NOT pgdoc.is_published(relation) THEN
    PERFORM pgdoc.publish_collection(relation, is_new => NOT pgdoc.is_table(relation));  -- what it held before counts from its first change
  END IF;
  IF NOT pgdoc.is_table(relation) THEN
    INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by, kind, key, document, columns, print, former_identity)
    SELECT c.oid, n.nspname, c.relname, pg_current_wal_insert_lsn(), 'create', 'table', pgdoc.table_key(c.oid), enter_table.document,
      pgdoc.table_columns(c.oid), (SELECT t.print FROM pgdoc.table_prints(ARRAY[c.oid]) AS t), enter_table.former_identity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
  END IF;
EXCEPTION WHEN unique_violation THEN  -- REPEATABLE READ, or another session is recording what became of the name's last table
  RAISE EXCEPTION 'table % is being registered by another transaction', relation
    USING ERRCODE = 'serialization_failure', HINT = 'Run it again.';
END $$;

-- Why the current role may not let streams watch a table, and what to do about it; NULL if it may.
CREATE FUNCTION pgdoc.role_fault(relation regclass) RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN NOT pg_has_role(c.relowner, 'USAGE')
      THEN ARRAY[format('role "%s" is not its owner', current_user), format('run it as "%s"', pg_get_userbyid(c.relowner))]
    WHEN NOT has_function_privilege(f.oid, 'EXECUTE') THEN ARRAY[format('role "%s" may not register tables', current_user),
      format('as "%s", run GRANT EXECUTE ON FUNCTION pgdoc.enter_table(regclass, text, text) TO %I', pg_get_userbyid(f.proowner), current_user)]
    WHEN p.oid IS NULL THEN ARRAY['the publication "pgdoc" does not exist', 'run CREATE PUBLICATION pgdoc']
    WHEN NOT pg_has_role(f.proowner, p.pubowner, 'USAGE')
      THEN ARRAY[format('role "%s" owns the publication "pgdoc"', pg_get_userbyid(p.pubowner)),
        format('run ALTER PUBLICATION pgdoc OWNER TO %I', pg_get_userbyid(f.proowner))]
    WHEN NOT pg_has_role(f.proowner, c.relowner, 'USAGE')
      THEN ARRAY[format('role "%s", which owns the catalog, may not publish it', pg_get_userbyid(f.proowner)),
        format('run GRANT %I TO %I', pg_get_userbyid(c.relowner), pg_get_userbyid(f.proowner))]
  END
  FROM pg_class c JOIN pg_proc f ON f.oid = 'pgdoc.enter_table'::regproc LEFT JOIN pg_publication p ON p.pubname = 'pgdoc'
  WHERE c.oid = relation
$$;
COMMENT ON FUNCTION pgdoc.role_fault IS 'why the current role may not let streams watch a table, and what to do about it; NULL if it may';

-- An empty registry becomes this database's own. Any other one is not even locked: `order_commits` would wait for that.
CREATE FUNCTION pgdoc.claim_registry() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM pgdoc.registry) THEN
    RETURN;
  END IF;
  INSERT INTO pgdoc.identity (system_id, database_oid, registry_oid, messages_until)
  SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), 'pgdoc.registry'::regclass, '0/0'
  FROM pg_control_system()
  ON CONFLICT (only_row) DO UPDATE
  SET system_id = excluded.system_id, database_oid = excluded.database_oid, registry_oid = excluded.registry_oid,
    messages_until = '0/0'
  WHERE (identity.system_id, identity.database_oid, identity.registry_oid)
    <> (excluded.system_id, excluded.database_oid, excluded.registry_oid);
END $$;

-- Has the rights of its caller, who must own the table. What it reads before it has the lock may be outdated afterwards.
CREATE FUNCTION pgdoc.add_table(relation regclass, document text DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
  was_full boolean := (SELECT relreplident = 'f' FROM pg_class WHERE oid = relation);
  former text;
BEGIN
  PERFORM pgdoc.check_bound();
  IF pgdoc.is_added(relation, document) THEN
    RETURN false;
  END IF;
  PERFORM pgdoc.refuse_watching(relation, coalesce(
    pgdoc.table_fault(relation, document), pgdoc.publication_conflict(relation), pgdoc.role_fault(relation)));
  PERFORM pgdoc.enter_table(NULL, NULL, NULL);
  PERFORM pgdoc.lock_patiently(relation, CASE WHEN was_full THEN 'SHARE ROW EXCLUSIVE' ELSE 'ACCESS EXCLUSIVE' END);
  PERFORM pgdoc.check_snapshot_of(relation);
  IF pgdoc.is_added(relation, document) THEN
    RETURN false;
  ELSIF (SELECT relreplident = 'f' FROM pg_class WHERE oid = relation) <> was_full THEN
    RAISE EXCEPTION 'the replica identity of table % was changed at the same time', relation
      USING ERRCODE = 'serialization_failure', HINT = 'Run it again.';
  END IF;
  IF NOT was_full THEN
    SELECT CASE c.relreplident WHEN 'i' THEN coalesce('i:' || x.relname, 'n') ELSE c.relreplident::text END INTO former
    FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident LEFT JOIN pg_class x ON x.oid = i.indexrelid
    WHERE c.oid = relation;
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL', relation);
  END IF;
  PERFORM pgdoc.enter_table(relation, document, former);
  RETURN true;
END $$;
COMMENT ON FUNCTION pgdoc.add_table IS 'makes streams able to watch a table as it is; returns false if they were';

-- Whether a table is watched, with this document, and lacks nothing.
CREATE FUNCTION pgdoc.is_added(relation regclass, document text) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
BEGIN
  SELECT r.document, c.relreplident = 'f' AND pgdoc.is_published(c.oid) AS is_whole INTO known
  FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid
  WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'table';
  IF FOUND AND known.document IS DISTINCT FROM is_added.document THEN
    PERFORM pgdoc.refuse_watching(relation, ARRAY[
      CASE WHEN known.document IS NULL THEN 'it is watched already, with its whole rows'
           ELSE format('it is watched already, with the document "%s"', known.document) END, 'remove it first']);
  END IF;
  RETURN FOUND AND known.is_whole;
END $$;

-- The half of `remove_table` that has the rights of the catalog's owner, who may own the publication.
CREATE FUNCTION pgdoc.leave_table(relation regclass) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_bound();
  PERFORM pgdoc.check_owner_of(relation);
  SET CONSTRAINTS pgdoc.pgdoc_order DEFERRED;
  UPDATE pgdoc.registry
  SET until = pg_current_wal_insert_lsn(), closed_by = 'unregister', closed_xid = pg_current_xact_id()
  WHERE oid = relation AND until IS NULL AND kind = 'table';
  IF FOUND THEN
    PERFORM pgdoc.withdraw(relation);
  END IF;
END $$;

-- Takes a table out of the publication, if the current role may.
CREATE FUNCTION pgdoc.withdraw(relation regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = 'pgdoc' AND r.prrelid = relation AND pg_has_role(p.pubowner, 'USAGE')) THEN
    EXECUTE format('ALTER PUBLICATION pgdoc DROP TABLE ONLY %s', relation);
  END IF;
END $$;

-- The replica identity becomes what it was: an update then writes less WAL again.
CREATE FUNCTION pgdoc.remove_table(relation regclass) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
  former text;
BEGIN
  PERFORM pgdoc.check_bound();
  IF NOT pgdoc.is_table(relation) THEN
    RETURN false;
  ELSIF NOT (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = relation) THEN
    PERFORM pgdoc.check_owner_of(relation);  -- it names the owner, unless the role that logged in is a member
  END IF;
  PERFORM pgdoc.lock_patiently(relation, 'ACCESS EXCLUSIVE');
  PERFORM pgdoc.check_snapshot_of(relation);
  PERFORM pgdoc.lock_followed(relation);
  SELECT r.former_identity INTO former FROM pgdoc.registry r WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'table';
  IF NOT FOUND THEN
    RETURN false;  -- another session has removed it, or its key is gone
  END IF;
  PERFORM pgdoc.leave_table(relation);
  PERFORM pgdoc.withdraw(relation);
  PERFORM pgdoc.restore_identity(relation, former);
  RETURN true;
END $$;
COMMENT ON FUNCTION pgdoc.remove_table IS 'ends the watching of a table, and keeps the table; returns false if it was not watched';

-- `former` is as registry.former_identity.
CREATE FUNCTION pgdoc.restore_identity(relation regclass, former text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF former IS NULL THEN
    RETURN;
  END IF;
  EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', relation, CASE
    WHEN former = 'n' THEN 'NOTHING'
    WHEN former LIKE 'i:%' AND EXISTS (
      SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = relation AND 'i:' || x.relname = former)
      THEN format('USING INDEX %I', substr(former, 3))
    ELSE 'DEFAULT' END);
END $$;

REVOKE ALL ON FUNCTION pgdoc.enter_table(regclass, text, text), pgdoc.claim_registry() FROM PUBLIC;
