-- Documents that expire. The comment of an index says after how long, and only the owner of its table can write that. So
-- this follows the collection and the index wherever they go.

-- Without a search_path, which would take longer than the rest; an index computes it for each version of a document. It is
-- immutable in truth: a date in this form means the same under each DateStyle, and the offset is not left to PostgreSQL,
-- where `Z` is an abbreviation that a setting can define.
CREATE FUNCTION pgdoc.time_of(value jsonb) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  part pg_catalog.text[];
  year integer;
  month integer;
  day integer;
  ahead integer := 0;
BEGIN
  IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.<>) 'string' THEN
    RETURN NULL;
  END IF;
  part := pg_catalog.regexp_match(value OPERATOR(pg_catalog.#>>) '{}',
    '^([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]((?:[01][0-9]|2[0-3]):[0-5][0-9])'
    '(?::([0-5][0-9])(?:[.,]([0-9]{1,6})[0-9]{0,3})?)?(?:[Zz]|([-+])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)$');
  IF part IS NULL THEN
    RETURN NULL;
  END IF;
  year := part[1]::integer;
  month := part[2]::integer;
  day := part[3]::integer;
  IF year OPERATOR(pg_catalog.=) 0 OR day OPERATOR(pg_catalog.>) (CASE
      WHEN month OPERATOR(pg_catalog.<>) 2 THEN CASE WHEN month OPERATOR(pg_catalog.=) ANY (ARRAY[4, 6, 9, 11]) THEN 30 ELSE 31 END
      WHEN year OPERATOR(pg_catalog.%) 4 OPERATOR(pg_catalog.=) 0
        AND (year OPERATOR(pg_catalog.%) 100 OPERATOR(pg_catalog.<>) 0 OR year OPERATOR(pg_catalog.%) 400 OPERATOR(pg_catalog.=) 0)
        THEN 29
      ELSE 28 END) THEN
    RETURN NULL;
  END IF;
  IF part[7] IS NOT NULL THEN
    ahead := (part[8]::integer OPERATOR(pg_catalog.*) 60) OPERATOR(pg_catalog.+) coalesce(part[9], '0')::integer;
    IF part[7] OPERATOR(pg_catalog.=) '-' THEN
      ahead := 0 OPERATOR(pg_catalog.-) ahead;
    END IF;
  END IF;
  RETURN pg_catalog.timezone('UTC', pg_catalog.concat(
      part[1], '-', part[2], '-', part[3], ' ', part[4], ':', coalesce(part[5], '00'), '.', coalesce(part[6], '0'))::pg_catalog.timestamp
    OPERATOR(pg_catalog.-) pg_catalog.make_interval(mins => ahead));
END $$;
COMMENT ON FUNCTION pgdoc.time_of IS
  'the time that a text of date, time and offset stands for, as in ISO 8601; NULL for another value';

CREATE FUNCTION pgdoc.expiry_time(data jsonb, path text[]) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  value pg_catalog.jsonb := data;
  kind pg_catalog.text;
  earliest pg_catalog.timestamptz;
  has_value boolean;
BEGIN
  FOR i IN 1 .. pg_catalog.cardinality(path) OPERATOR(pg_catalog.+) 1 LOOP
    kind := pg_catalog.jsonb_typeof(value);
    IF kind OPERATOR(pg_catalog.=) 'array' THEN
      SELECT pg_catalog.min(pgdoc.time_of(item)), 
        coalesce(pg_catalog.bool_or(pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.<>) ALL (ARRAY['null', 'array'])), false)
      INTO earliest, has_value FROM pgdoc.values_at(data, path) AS found(item);
      RETURN CASE WHEN earliest IS NOT NULL THEN earliest WHEN has_value THEN 'infinity'::pg_catalog.timestamptz END;
    ELSIF i OPERATOR(pg_catalog.>) pg_catalog.cardinality(path) THEN
      RETURN CASE WHEN kind OPERATOR(pg_catalog.<>) 'null' THEN coalesce(pgdoc.time_of(value), 'infinity') END;
    ELSIF kind OPERATOR(pg_catalog.=) 'object' THEN
      value := value OPERATOR(pg_catalog.->) path[i];
    ELSE
      RETURN NULL;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION pgdoc.expiry_time IS
  'the earliest time at a path; infinity if there are values, and none is a time; NULL if there is none, or null';

-- Comments are texts of the owners of tables. One that can't be read must not hide those of others.
CREATE FUNCTION pgdoc.expiry_definition(index oid) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  about jsonb;
BEGIN
  about := obj_description(index, 'pg_class');
  IF jsonb_typeof(about -> 'pgdoc index') = 'string' AND about ->> 'part' = 'times'
      AND jsonb_typeof(about -> 'expire_after') = 'number' AND (about -> 'expire_after')::numeric BETWEEN 0 AND 2147483647 THEN
    RETURN about;
  END IF;
  RETURN NULL;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR statement_too_complex OR wrong_object_type THEN
  RETURN NULL;
END $$;
COMMENT ON FUNCTION pgdoc.expiry_definition IS
  'what create_index(expire_after=...) has written about an index; NULL for an index by which nothing expires';

-- Why this session must not delete what is due; NULL if it may. A session deletes without having been asked to, so it must
-- not run code of a role that could not act as this one anyway. The statement that deletes has locked the table by then, so
-- such code can't come after this look.
CREATE FUNCTION pgdoc.expiry_obstacle(relation oid, trusting boolean DEFAULT false) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  code text;
BEGIN
  IF pg_is_in_recovery() THEN
    RETURN 'the server is a standby';
  ELSIF (has_table_privilege(relation, 'SELECT') AND has_table_privilege(relation, 'DELETE')
      AND has_any_column_privilege(relation, 'UPDATE')) IS NOT TRUE THEN
    RETURN format('role %I lacks SELECT, UPDATE or DELETE', current_user);
  ELSIF row_security_active(relation) THEN
    RETURN format('row-level security applies to role %I', current_user);
  ELSIF trusting OR EXISTS (
      SELECT FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner
      WHERE c.oid = relation AND (o.rolname = session_user OR o.rolsuper
        OR o.oid = (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = 'pgdoc'))) THEN
    RETURN NULL;
  END IF;
  SELECT found.name INTO code FROM (
    SELECT format('trigger %I', t.tgname)
    FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgenabled <> 'D' AND t.tgtype & 8 <> 0
    UNION ALL
    SELECT 'a rule' FROM pg_class c WHERE c.oid = relation AND c.relhasrules
    UNION ALL  -- the planner evaluates these where they are constant
    SELECT pg_describe_object(d.refclassid, d.refobjid, 0)
    FROM pg_depend d
    WHERE (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = relation)
        OR d.classid = 'pg_constraint'::regclass AND d.objid IN (SELECT k.oid FROM pg_constraint k WHERE k.conrelid = relation)
        OR d.classid = 'pg_statistic_ext'::regclass
          AND d.objid IN (SELECT s.oid FROM pg_statistic_ext s WHERE s.stxrelid = relation))
      AND (d.refclassid = 'pg_proc'::regclass AND d.refobjid NOT IN (
          SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'pgdoc'::regnamespace)
        OR d.refclassid IN ('pg_operator'::regclass, 'pg_type'::regclass))
  ) AS found(name) LIMIT 1;
  IF code IS NOT NULL THEN
    RETURN (
      SELECT format('%s would run with the rights of role %I, and belongs to role %I, as the collection does', code, session_user,
        pg_get_userbyid(c.relowner))
      FROM pg_class c WHERE c.oid = relation);
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION pgdoc.expiry_obstacle IS 'why this session does not delete the expired documents of a table; NULL if it may';

CREATE FUNCTION pgdoc.expiring(wanted_schema text)
RETURNS TABLE (index oid, collection text, name text, expire_after interval, obstacle text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation oid;
  definition jsonb;
BEGIN
  FOR index, relation, collection IN
    SELECT i.indexrelid, c.oid, c.relname
    FROM pg_description d JOIN pg_index i ON i.indexrelid = d.objoid JOIN pg_class c ON c.oid = i.indrelid
      JOIN pgdoc.registry r ON r.oid = c.oid AND r.until IS NULL
    WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND strpos(d.description, '"times"') > 0 AND i.indisvalid
      AND c.relnamespace = to_regnamespace(quote_ident(wanted_schema))
    ORDER BY c.relname, i.indexrelid
  LOOP
    definition := pgdoc.expiry_definition(index);
    IF definition IS NOT NULL AND pgdoc.is_collection(relation) THEN
      name := definition ->> 'pgdoc index';
      expire_after := make_interval(secs => (definition -> 'expire_after')::float8);
      obstacle := pgdoc.expiry_obstacle(relation);
      RETURN NEXT;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION pgdoc.expiring IS 'the indexes of a schema by which documents expire, and why this session does not delete them';

-- Where sessions take turns. It says nothing about what expires, so the worst that a row can do is to delay that.
CREATE TABLE pgdoc.expiry (
  index    oid PRIMARY KEY,
  swept_at timestamptz NOT NULL
);
COMMENT ON TABLE pgdoc.expiry IS 'when a session last deleted expired documents; one row for each index that had some';
GRANT SELECT ON pgdoc.expiry TO PUBLIC;

-- The row stays locked until the batch commits. Only a role that may delete the documents can get it, or call another role's
-- function that does.
CREATE FUNCTION pgdoc.claim_expiry(index oid, renews boolean) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  caller text := CASE WHEN current_setting('role') = 'none' THEN session_user ELSE current_setting('role') END;
BEGIN
  IF (SELECT has_table_privilege(caller, i.indrelid, 'DELETE') FROM pg_index i WHERE i.indexrelid = index) IS NOT TRUE THEN
    RAISE EXCEPTION 'role % may not delete the documents of the index %', caller, index USING ERRCODE = 'insufficient_privilege';
  END IF;
  INSERT INTO pgdoc.expiry AS known VALUES (index, '-infinity') ON CONFLICT DO NOTHING;
  IF FOUND THEN
    DELETE FROM pgdoc.expiry e WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = e.index);
  END IF;
  PERFORM FROM pgdoc.expiry e
  WHERE e.index = claim_expiry.index
    AND (renews OR e.swept_at NOT BETWEEN clock_timestamp() - interval '50 s' AND clock_timestamp())
  FOR UPDATE SKIP LOCKED;
  IF FOUND THEN
    UPDATE pgdoc.expiry e SET swept_at = clock_timestamp() WHERE e.index = claim_expiry.index;
    RETURN true;
  END IF;
  RETURN false;
END $$;

-- One batch, with the rights of the caller. `after` is the `latest` of the batch before, so that what a trigger keeps is not
-- met again and again. `claimed` is false if another session deletes, or did so just now. A document whose time was changed
-- after the snapshot is compared again when it is locked.
CREATE FUNCTION pgdoc.expire_batch(index oid, most bigint, after timestamptz DEFAULT '-infinity', renews boolean DEFAULT true,
  trusting boolean DEFAULT false, OUT claimed boolean, OUT met bigint, OUT deleted bigint, OUT latest timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  relation regclass := (SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = index);
  definition jsonb;
  condition text;
  moment text;
  until timestamptz;
  obstacle text;
  is_due boolean;
BEGIN
  claimed := false;
  met := 0;
  deleted := 0;
  IF relation IS NULL OR NOT pgdoc.is_collection(relation) THEN
    RETURN;
  END IF;
  PERFORM pgdoc.lock_table(relation, 'ROW EXCLUSIVE');
  definition := pgdoc.expiry_definition(index);
  SELECT coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'), pg_get_indexdef(i.indexrelid, 1, false) INTO condition, moment
  FROM pg_index i WHERE i.indexrelid = index AND i.indisvalid;
  IF definition IS NULL OR moment IS NULL THEN
    RETURN;
  END IF;
  obstacle := pgdoc.expiry_obstacle(relation, trusting);
  IF obstacle IS NOT NULL THEN
    RAISE EXCEPTION 'expired documents of % stay: %', relation, obstacle USING ERRCODE = 'insufficient_privilege';
  END IF;
  until := clock_timestamp() - make_interval(secs => (definition -> 'expire_after')::float8);
  condition := format('%1$s >= $1 AND %1$s <= $2 AND (%2$s)', moment, condition);
  EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s WHERE %s)', relation, condition) INTO is_due USING after, until;
  IF NOT is_due THEN  -- so that nothing is written at rest
    claimed := true;
    RETURN;
  ELSIF NOT pgdoc.claim_expiry(index, renews) THEN
    RETURN;
  END IF;
  claimed := true;
  EXECUTE format(
    'WITH due AS MATERIALIZED ('
    '  SELECT id, %2$s AS moment FROM ONLY %1$s WHERE %3$s ORDER BY %2$s LIMIT $3 FOR UPDATE SKIP LOCKED'
    '), message AS MATERIALIZED (SELECT pg_logical_emit_message(true, ''pgdoc'', $4) FROM due LIMIT 1), gone AS ('
    '  DELETE FROM ONLY %1$s AS stored USING due, message WHERE stored.id = due.id RETURNING true'
    ') SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone), (SELECT max(moment) FROM due)', relation, moment, condition)
  INTO met, deleted, latest
  USING after, until, most,
    jsonb_build_object('metadata', jsonb_build_object('pgdoc', 'expired', 'index', definition -> 'pgdoc index'))::text;
END $$;
COMMENT ON FUNCTION pgdoc.expire_batch IS 'deletes the first documents that have expired by an index';

CREATE FUNCTION pgdoc.expiry_backlog(index oid, OUT due bigint, OUT due_since timestamptz, OUT ignored bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  definition jsonb := pgdoc.expiry_definition(index);
  kept interval := make_interval(secs => (definition -> 'expire_after')::float8);
  relation regclass;
  condition text;
  moment text;
BEGIN
  SELECT i.indrelid, coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'), pg_get_indexdef(i.indexrelid, 1, false)
  INTO relation, condition, moment FROM pg_index i WHERE i.indexrelid = index;
  EXECUTE format(
    'SELECT count(*), min(moment) FROM ('
    '  SELECT %2$s AS moment FROM ONLY %1$s WHERE %2$s <= $1 AND (%3$s) ORDER BY %2$s LIMIT 10001) AS late', relation, moment, condition)
  INTO due, due_since USING clock_timestamp() - kept;
  due_since := due_since + kept;
  EXECUTE format('SELECT count(*) FROM (SELECT FROM ONLY %1$s WHERE %2$s = ''infinity'' AND (%3$s) LIMIT 10001) AS odd',
    relation, moment, condition) INTO ignored;
END $$;
COMMENT ON FUNCTION pgdoc.expiry_backlog IS
  'how many documents have expired by an index and are still there, since when, and how many have values that are no time; each counted up to 10,001';
