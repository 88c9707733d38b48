-- Who owns a consumer, which sessions keep history, and which build indexes. These are rows that only the catalog's owner
-- and the roles it granted can write, because any role can take any advisory lock.

-- A row is claimed with one UPDATE, and the claim counts while its session is open. It is a separate table from
-- pgdoc.consumers so that no claim and no renewal waits for a transaction that holds a checkpoint's row lock.
CREATE TABLE pgdoc.owners (
  name          text PRIMARY KEY,
  epoch         bigint NOT NULL,
  holder        uuid NOT NULL,
  pid           integer,
  backend_start timestamptz,
  renewed_at    timestamptz NOT NULL,
  ttl           interval NOT NULL,
  needs_lease   boolean NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE pgdoc.owners IS 'which process owns each durable consumer';
COMMENT ON COLUMN pgdoc.owners.epoch IS 'increases with each claim';
COMMENT ON COLUMN pgdoc.owners.holder IS 'identifies the claim; after a failover, an epoch can be given out twice';
COMMENT ON COLUMN pgdoc.owners.pid IS 'the owner''s session, together with backend_start; null when the owner has left';
COMMENT ON COLUMN pgdoc.owners.renewed_at IS 'when the owner last wrote, by the server''s clock';
COMMENT ON COLUMN pgdoc.owners.ttl IS 'how long the owner''s session may be idle before the server ends it';
COMMENT ON COLUMN pgdoc.owners.needs_lease IS 'whether a standby cannot see the owner''s session: the claim then ends ttl after renewed_at, and the owner renews it at rest, too';

ALTER TABLE pgdoc.consumers ADD COLUMN holder uuid;
COMMENT ON COLUMN pgdoc.consumers.holder IS 'the claim of pgdoc.owners under which checkpoints commit, together with epoch';

-- A process with an older version of pgdoc increments the epoch and knows no holder. Until a newer version has owned the
-- consumer, it may go on.
CREATE FUNCTION pgdoc.refuse_older_owner() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'consumer "%" is used by a newer version of pgdoc', NEW.name
    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Install the version of pgdoc that the catalog has.';
END $$;
CREATE TRIGGER refuse_older_owner BEFORE UPDATE OF epoch ON pgdoc.consumers FOR EACH ROW
  WHEN (NEW.epoch OPERATOR(pg_catalog.<>) OLD.epoch AND NEW.holder OPERATOR(pg_catalog.=) OLD.holder)
  EXECUTE FUNCTION pgdoc.refuse_older_owner();

-- Both tables contain ids of documents. Roles that open consumers keep the rights that they had through PUBLIC.
DO $$
DECLARE
  grantee text;
BEGIN
  FOR grantee IN
    SELECT DISTINCT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END
    FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) AS acl
    WHERE c.oid = 'pgdoc.consumers'::pg_catalog.regclass AND acl.privilege_type = 'UPDATE' AND acl.grantee <> c.relowner
  LOOP
    EXECUTE pg_catalog.format('GRANT SELECT ON pgdoc.consumers, pgdoc.consumer_progress TO %s', grantee);
    EXECUTE pg_catalog.format('GRANT SELECT, INSERT, UPDATE, DELETE ON pgdoc.owners TO %s', grantee);
  END LOOP;
END $$;
REVOKE SELECT ON pgdoc.consumers, pgdoc.consumer_progress FROM PUBLIC;


-- Sessions with a task: to keep history, which the first one does, or to build the indexes of a table. Only the functions below write here, and each writes about the
-- session that calls it. A row counts while its session is open; a crash of the server empties the table.
CREATE UNLOGGED TABLE pgdoc.sessions (
  number        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  task          text NOT NULL,
  pid           integer NOT NULL,
  role          oid NOT NULL,
  backend_start timestamptz
);
CREATE UNIQUE INDEX ON pgdoc.sessions (task) WHERE task <> 'history';
COMMENT ON TABLE pgdoc.sessions IS 'the sessions that keep history or build indexes';

-- backend_start is NULL if the catalog's owner may not see it.
CREATE FUNCTION pgdoc.is_open(session pgdoc.sessions) RETURNS boolean LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM pg_stat_activity a
    WHERE a.pid = session.pid AND a.usesysid = session.role
      AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (a.backend_start = session.backend_start) IS NOT FALSE)
$$;
REVOKE EXECUTE ON FUNCTION pgdoc.is_open FROM PUBLIC;

-- Returns whether the task is this session's now.
CREATE FUNCTION pgdoc.note_session(task text) RETURNS boolean LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH noted AS (
    INSERT INTO pgdoc.sessions (task, pid, role, backend_start)
    SELECT task, pid, usesysid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ON CONFLICT DO NOTHING
    RETURNING true)
  SELECT EXISTS (SELECT FROM noted)
$$;
REVOKE EXECUTE ON FUNCTION pgdoc.note_session FROM PUBLIC;

-- The functions that look at sessions first forget what their transaction has read of pg_stat_activity.

CREATE FUNCTION pgdoc.enter_hub() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = session_user AND (rolreplication OR rolsuper)) THEN
    RAISE EXCEPTION 'role "%" may not replicate', session_user USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM pg_stat_clear_snapshot();
  DELETE FROM pgdoc.sessions WHERE number IN (
    SELECT s.number FROM pgdoc.sessions s
    WHERE s.task = 'history' AND s.pid = pg_backend_pid() OR NOT pgdoc.is_open(s)
    FOR UPDATE SKIP LOCKED);
  PERFORM pgdoc.note_session('history');
END $$;
COMMENT ON FUNCTION pgdoc.enter_hub IS 'notes that this session wants to keep history, after all that do already';

CREATE FUNCTION pgdoc.keeps_history() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_stat_clear_snapshot();
  RETURN NOT EXISTS (
    SELECT FROM pgdoc.sessions s
    WHERE s.task = 'history' AND s.pid <> pg_backend_pid() AND pgdoc.is_open(s)
      AND s.number < coalesce(
        (SELECT max(number) FROM pgdoc.sessions WHERE task = 'history' AND pid = pg_backend_pid()), s.number + 1));
END $$;
COMMENT ON FUNCTION pgdoc.keeps_history IS 'whether no other open session entered before this one';

CREATE FUNCTION pgdoc.leave_hub() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM pgdoc.sessions WHERE task = 'history' AND pid = pg_backend_pid()
$$;

CREATE FUNCTION pgdoc.begin_index_build(relation regclass) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  its_task text := format('indexes of %s', relation::oid);
BEGIN
  -- Only roles that may write to the table can take this lock; they can delay its index builds in any case.
  IF NOT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation = $1 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.mode = 'RowExclusiveLock') THEN
    RAISE EXCEPTION 'this session has not locked %', relation
      USING ERRCODE = 'insufficient_privilege', HINT = format('Run LOCK TABLE %s IN ROW EXCLUSIVE MODE.', relation);
  END IF;
  PERFORM pg_stat_clear_snapshot();
  DELETE FROM pgdoc.sessions s  -- a session builds the indexes of one table at a time
  WHERE s.task <> 'history' AND s.pid = pg_backend_pid() OR s.task = its_task AND NOT pgdoc.is_open(s);
  RETURN pgdoc.note_session(its_task);
END $$;
COMMENT ON FUNCTION pgdoc.begin_index_build IS 'notes that this session builds indexes of a table; returns false if another does';

CREATE FUNCTION pgdoc.end_index_build(relation oid) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM pgdoc.sessions WHERE task = format('indexes of %s', relation) AND pid = pg_backend_pid()
$$;
