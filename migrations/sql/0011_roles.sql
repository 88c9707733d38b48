-- Who may replicate, also on Amazon RDS, where a membership in `rds_replication` stands for the attribute, which nobody can give.
-- Only Amazon's own superuser `rdsadmin` shows such a server: another role can't create one.

CREATE FUNCTION pgdoc.may_replicate(role name) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM pg_roles r
    WHERE r.rolname = role AND (r.rolreplication OR r.rolsuper OR EXISTS (
      SELECT FROM pg_roles m JOIN pg_roles a ON a.rolname = 'rdsadmin' AND a.rolsuper
      WHERE m.rolname = 'rds_replication' AND pg_has_role(r.oid, m.oid, 'MEMBER'))))
$$;
COMMENT ON FUNCTION pgdoc.may_replicate IS 'whether a role may open replication connections';

CREATE OR REPLACE FUNCTION pgdoc.follow_tables() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms' AS $$
BEGIN
  IF pgdoc.may_replicate(session_user) OR has_function_privilege(session_user, 'pgdoc.enter_collection(regclass)', 'EXECUTE') THEN
    PERFORM pgdoc.follow('{}', true);
  END IF;
EXCEPTION WHEN lock_not_available OR deadlock_detected OR unique_violation THEN
  NULL;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.enter_hub() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pgdoc.may_replicate(session_user) THEN
    RAISE EXCEPTION 'role "%" may not replicate', session_user USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM pg_stat_clear_snapshot();
  DELETE FROM pgdoc.sessions WHERE number IN (
    SELECT s.number FROM pgdoc.sessions s
    WHERE s.task = 'history' AND s.pid = pg_backend_pid() OR NOT pgdoc.is_open(s)
    FOR UPDATE SKIP LOCKED);
  PERFORM pgdoc.note_session('history');
END $$;
