-- JSON Schemas of collections. The schema is the comment of a check, which only the owner of the table can write, and which
-- follows the table wherever it goes. The check names nothing of the schema pgdoc, so that it survives a restore of the
-- collection alone.

CREATE FUNCTION pgdoc.json_schema(relation oid) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT obj_description(k.oid, 'pg_constraint') FROM pg_constraint k
  WHERE k.conrelid = relation AND k.contype = 'c' AND k.conname = 'pgdoc_schema'
$$;
COMMENT ON FUNCTION pgdoc.json_schema IS 'the JSON Schema to which the documents of a collection must conform; NULL without one';

-- `violation` finds in a document what breaks the schema, as far as a jsonpath can. Documents that exist are not looked at.
CREATE FUNCTION pgdoc.set_json_schema(relation regclass, json_schema text, violation jsonpath) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
BEGIN
  IF NOT pgdoc.is_collection(relation) THEN
    RAISE EXCEPTION 'table % is not a collection', relation USING ERRCODE = 'wrong_object_type';
  END IF;
  PERFORM pgdoc.lock_table(relation, 'ACCESS EXCLUSIVE');
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS pgdoc_schema', relation);
  IF json_schema IS NOT NULL THEN
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT pgdoc_schema CHECK (%s) NOT VALID', relation,
      coalesce(format('NOT jsonb_path_exists(data, %L::jsonpath, ''{}'', true)', violation::text), 'true'));
    EXECUTE format('COMMENT ON CONSTRAINT pgdoc_schema ON %s IS %L', relation, json_schema);
  END IF;
END $$;
COMMENT ON FUNCTION pgdoc.set_json_schema IS
  'sets the JSON Schema of a collection, and the check for what can be checked in the table; NULL for no schema';

CREATE FUNCTION pgdoc.create_collection(schema_name text, name text, max_size bigint, json_schema text, violation jsonpath)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pgdoc.create_collection(schema_name, name, max_size) THEN
    RETURN false;
  END IF;
  IF json_schema IS NOT NULL THEN
    PERFORM pgdoc.set_json_schema(to_regclass(format('%I.%I', schema_name, name)), json_schema, violation);
  END IF;
  RETURN true;
END $$;
COMMENT ON FUNCTION pgdoc.create_collection(text, text, bigint, text, jsonpath) IS
  'creates a collection whose documents must conform to a JSON Schema; returns false if it exists';
