CREATE OR REPLACE FUNCTION pgdoc.follow_tables() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = session_user AND (rolreplication OR rolsuper))
     OR has_function_privilege(session_user, 'pgdoc.enter_collection(regclass)', 'EXECUTE') THEN
    PERFORM pgdoc.follow('{}', true);
  END IF;
EXCEPTION WHEN lock_not_available OR deadlock_detected OR unique_violation THEN
  NULL;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.enter_hub() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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

DROP FUNCTION pgdoc.may_replicate(name);
