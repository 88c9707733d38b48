-- Transactions with a change that the server can't send, and that a consumer has met or passed.

CREATE TABLE pgdoc.unreadable (
  consumer    text NOT NULL REFERENCES pgdoc.consumers ON DELETE CASCADE,
  commit_lsn  pg_lsn NOT NULL,
  lsn         pg_lsn NOT NULL,
  xid         bigint,
  collections text[] NOT NULL,
  problem     text NOT NULL,
  found_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  skipped_at  timestamptz,
  skipped_by  text,
  passed_at   timestamptz,
  PRIMARY KEY (consumer, commit_lsn)
);
COMMENT ON TABLE pgdoc.unreadable IS 'transactions of which a consumer can''t read a change that it wants';
COMMENT ON COLUMN pgdoc.unreadable.commit_lsn IS 'the LSN of the commit record';
COMMENT ON COLUMN pgdoc.unreadable.lsn IS 'the LSN of the change';
COMMENT ON COLUMN pgdoc.unreadable.collections IS 'the collections with such a change; empty if they could not be found out';
COMMENT ON COLUMN pgdoc.unreadable.skipped_at IS 'when an operator told the consumer to pass it; null if nobody did';
COMMENT ON COLUMN pgdoc.unreadable.skipped_by IS 'the role that did';
COMMENT ON COLUMN pgdoc.unreadable.passed_at IS 'when the consumer first went on without these changes';

-- The same roles may read and write it as pgdoc.consumers.
DO $$
DECLARE
  granted record;
BEGIN
  FOR granted IN
    SELECT acl.privilege_type AS privilege,
      CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END AS grantee
    FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) AS acl
    WHERE c.oid = 'pgdoc.consumers'::pg_catalog.regclass AND acl.grantee <> c.relowner
      AND acl.privilege_type = ANY (ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'])
  LOOP
    EXECUTE pg_catalog.format('GRANT %s ON pgdoc.unreadable TO %s', granted.privilege, granted.grantee);
  END LOOP;
END $$;
