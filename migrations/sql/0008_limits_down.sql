-- The checks pgdoc_size stay: they need nothing of the schema pgdoc.
DROP FUNCTION pgdoc.create_collection(text, text, bigint), pgdoc.read_part(oid, text, bigint, bigint),
  pgdoc.readable_time(timestamptz), pgdoc.readable_text(jsonb), pgdoc.set_max_size(regclass, bigint, boolean),
  pgdoc.max_size(regclass), pgdoc.size_condition(bigint);

CREATE FUNCTION pgdoc.create_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql
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
COMMENT ON FUNCTION pgdoc.create_collection IS 'creates a collection; returns false if it exists';
