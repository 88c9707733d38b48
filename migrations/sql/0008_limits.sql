-- A limit on the JSON text of documents, and readers that get past rows which the server can't print.

-- The condition of the check `pgdoc_size`. jsonb prints at most 10,000 bytes for each byte that it takes: a number with
-- 131,072 digits before the decimal point and 16,383 after it takes 16 bytes, and everything else prints far less. So most
-- documents are accepted without being printed. The stored size can't tell, because stored documents can be compressed;
-- `data || '{}'` returns the document as it is, uncompressed. It names nothing of the schema pgdoc, so that it survives a
-- restore of the collection alone.
CREATE FUNCTION pgdoc.size_condition(max_size bigint) RETURNS text LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF max_size IS NULL OR max_size NOT BETWEEN 1 AND 1000000000 THEN
    RAISE EXCEPTION 'max_size must be from 1 to 1000000000 bytes, got %', max_size USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN format('pg_column_size(data || ''{}'') <= %s OR octet_length(data::text) <= %s', max_size / 10000, max_size);
END $$;
COMMENT ON FUNCTION pgdoc.size_condition IS 'the check that limits the JSON text of documents to this many bytes';

-- A check that does not hold for all rows, or that says something else under this name, is no limit.
CREATE FUNCTION pgdoc.max_size(relation regclass) RETURNS bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
  SELECT found.max_size
  FROM pg_constraint k,
    LATERAL (SELECT pg_get_constraintdef(k.oid) AS definition) AS shown,
    LATERAL (SELECT substring(shown.definition FROM '<= ([0-9]{1,10})[)]*$')::bigint AS max_size) AS found
  WHERE k.conrelid = relation AND k.contype = 'c' AND k.conname = 'pgdoc_size' AND k.convalidated AND shown.definition = format(
    'CHECK (((pg_column_size((data || ''{}''::jsonb)) <= %s) OR (octet_length((data)::text) <= %s)))',
    found.max_size / 10000, found.max_size)
$$;
COMMENT ON FUNCTION pgdoc.max_size IS 'the largest JSON text in bytes that a collection takes; NULL without a limit';

-- In steps, so that the table is not locked while its documents are looked at: without `validate`, the new check holds for
-- writes only; after VALIDATE CONSTRAINT pgdoc_size_new, a second call finds it valid, and only puts it in its place.
CREATE FUNCTION pgdoc.set_max_size(relation regclass, max_size bigint, validate boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
BEGIN
  IF NOT pgdoc.is_collection(relation) THEN
    RAISE EXCEPTION 'table % is not a collection', relation USING ERRCODE = 'wrong_object_type';
  END IF;
  PERFORM pgdoc.lock_table(relation, 'ACCESS EXCLUSIVE');
  IF max_size IS NULL THEN
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS pgdoc_size, DROP CONSTRAINT IF EXISTS pgdoc_size_new', relation);
    RETURN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = relation AND k.conname = 'pgdoc_size_new'
                   AND pg_get_constraintdef(k.oid) ~ format('<= %s[)]+( NOT VALID)?$', max_size)) THEN
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS pgdoc_size_new', relation);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT pgdoc_size_new CHECK (%s) NOT VALID', relation, pgdoc.size_condition(max_size));
  END IF;
  IF validate THEN
    EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT pgdoc_size_new', relation);
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS pgdoc_size', relation);
    EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT pgdoc_size_new TO pgdoc_size', relation);
  END IF;
END $$;
COMMENT ON FUNCTION pgdoc.set_max_size IS 'limits the JSON text of a collection''s documents, in bytes; NULL for no limit';

-- NULL for a value that PostgreSQL can't print: it prints at most 1 GB, and a row of a result needs some of that. A short
-- value is printed without a subtransaction, see size_condition. It is qualified instead of having a search_path, which
-- would take longer than the rest.
CREATE FUNCTION pgdoc.readable_text(value jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
  printed pg_catalog.text;
BEGIN
  IF pg_catalog.pg_column_size(value OPERATOR(pg_catalog.||) '{}'::pg_catalog.jsonb) OPERATOR(pg_catalog.<=) 100000 THEN
    RETURN value::pg_catalog.text;
  END IF;
  BEGIN
    printed := value::pg_catalog.text;
  EXCEPTION WHEN program_limit_exceeded OR out_of_memory OR internal_error THEN  -- the latter for the last bytes before 1 GB
    RETURN NULL;
  END;
  RETURN CASE WHEN pg_catalog.octet_length(printed) OPERATOR(pg_catalog.<=) 1000000000 THEN printed END;
END $$;
COMMENT ON FUNCTION pgdoc.readable_text IS 'the text of a value; NULL if PostgreSQL can not print it';

-- NULL for a time that Python does not have. Without a search_path it becomes part of the statement that calls it.
CREATE FUNCTION pgdoc.readable_time(moment timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN moment OPERATOR(pg_catalog.>=) '0001-01-02 00:00:00+00'::pg_catalog.timestamptz
    AND moment OPERATOR(pg_catalog.<) '9999-12-31 00:00:00+00'::pg_catalog.timestamptz THEN moment END
$$;
COMMENT ON FUNCTION pgdoc.readable_time IS 'the time, in the range of Python''s datetime; otherwise NULL';

-- The next documents of a collection by id, up to so many, or so many bytes of text: the document that passes most_bytes is
-- the last one. A row without an id comes last if there are no more.
CREATE FUNCTION pgdoc.read_part(relation oid, after text, most_rows bigint, most_bytes bigint)
RETURNS TABLE (id text, data text, version bigint, created_at timestamptz, updated_at timestamptz) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  document jsonb;
  number bigint := 0;
  bytes bigint := 0;
BEGIN
  FOR id, document, version, created_at, updated_at IN EXECUTE format(
    'SELECT id COLLATE "C", data, version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at) FROM %s '
    'WHERE id COLLATE "C" > $1 ORDER BY id COLLATE "C" LIMIT $2', relation::regclass) USING after, most_rows
  LOOP
    data := pgdoc.readable_text(document);
    RETURN NEXT;
    number := number + 1;
    bytes := bytes + coalesce(octet_length(data), 0);
    EXIT WHEN bytes >= most_bytes;
  END LOOP;
  IF number < most_rows AND bytes < most_bytes THEN
    id := NULL;
    data := NULL;
    RETURN NEXT;
  END IF;
END $$;
COMMENT ON FUNCTION pgdoc.read_part IS 'the next documents of a collection, for the snapshot of a stream';

DROP FUNCTION pgdoc.create_collection(text, text);
CREATE FUNCTION pgdoc.create_collection(schema_name text, name text, max_size bigint DEFAULT 67108864) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
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
        '  data jsonb NOT NULL CONSTRAINT pgdoc_data CHECK (jsonb_typeof(data) = ''object'' AND NOT data ? ''_id'')%s,'
        '  version bigint NOT NULL DEFAULT 1,'
        '  replaced_version bigint NOT NULL DEFAULT 1,'
        '  created_at timestamptz NOT NULL DEFAULT now(),'
        '  updated_at timestamptz NOT NULL DEFAULT now())', schema_name, name,
        CASE WHEN max_size IS NOT NULL THEN format(' CONSTRAINT pgdoc_size CHECK (%s)', pgdoc.size_condition(max_size)) END);
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
COMMENT ON FUNCTION pgdoc.create_collection(text, text, bigint) IS
  'creates a collection whose documents have at most max_size bytes of JSON text; returns false if it exists';
