-- Who needs what of the schema pgdoc:
--
-- reader    to SELECT alembic_version, and to execute what computes (IMMUTABLE): filters call it.
-- writer    the same: indexes and updates call it. To publish events of its own, EXECUTE on publish(text, jsonb, text), or
--           INSERT on the columns topic, key and payload of messages.
-- creator   EXECUTE on enter_collection, besides CREATE on the schema; and on the functions of the triggers, which it
--           attaches. The other functions that act on a table have only the rights of their caller.
-- team      EXECUTE on enter_table, to let streams watch tables that it owns.
-- streamer  REPLICATION, and to SELECT what says where a stream may begin: registry, registry_commits, identity, published
--           and settings. These name collections, as pg_class does.
-- consumer  the same, and SELECT, INSERT, UPDATE and DELETE on consumers, consumer_progress, owners and unreadable, which
--           contain ids of documents.
-- worker    the same, and SELECT, INSERT, UPDATE and DELETE on handlers and dead_letters. A dead letter contains documents,
--           so a role that may read the table reads what its workers' streams were given.
-- relay     what a consumer needs, and SELECT, INSERT, UPDATE and DELETE on relays.
-- letters   SELECT on dead_letters, to list them; UPDATE and DELETE as well, to have them retried and to drop them.
-- monitor   EXECUTE on consumer_metrics and dead_letter_metrics, which members of pg_monitor have: their results contain no
--           ids.
-- owner     everything else.
--
-- So PUBLIC may execute what can't write (IMMUTABLE and STABLE), and by name: functions that write with the rights of their
-- caller alone, and those with the rights of the owner (SECURITY DEFINER) that record only facts about the caller's own
-- session, or such as anybody can see. PostgreSQL lets PUBLIC execute each new function, and default privileges can't change
-- that for one schema. So `pgdoc init` runs this each time, also after a restore without privileges.
DO $$
DECLARE
  changed record;
BEGIN
  FOR changed IN
    SELECT found.signature, found.is_wanted
    FROM (
      SELECT p.oid::regprocedure AS signature,
        p.provolatile IN ('i', 's') AND NOT p.prosecdef OR NOT (p.proname = 'publish' AND p.prosecdef) AND p.proname IN (
          'set_metadata', 'create_collection', 'drop_collection', 'rename_collection', 'register', 'unregister', 'lock_table',
          'lock_followed', 'equip_collection', 'add_table', 'remove_table', 'leave_table', 'read_table', 'lock_patiently',
          'withdraw', 'restore_identity', 'set_max_size', 'set_json_schema', 'publish', 'publish_messages', 'follow_own_ddl', 'before_update', 'refuse_insert',
          'check_truncate', 'create_table',
          'follow_tables', 'enter_hub', 'keeps_history', 'leave_hub', 'begin_index_build', 'end_index_build',
          'expire_batch', 'claim_expiry') AS is_wanted,
        EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl WHERE acl.grantee = 0) AS is_public
      FROM pg_proc p
      WHERE p.pronamespace = 'pgdoc'::regnamespace AND pg_has_role(p.proowner, 'USAGE')
    ) AS found
    WHERE found.is_wanted <> found.is_public
  LOOP
    EXECUTE format(CASE WHEN changed.is_wanted THEN 'GRANT EXECUTE ON FUNCTION %s TO PUBLIC'
                        ELSE 'REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC' END, changed.signature);
  END LOOP;
  FOR changed IN
    SELECT p.oid::regprocedure AS signature
    FROM pg_proc p JOIN pg_roles r ON r.rolname = 'pg_monitor'
    WHERE p.pronamespace = 'pgdoc'::regnamespace AND p.proname IN ('consumer_metrics', 'dead_letter_metrics') AND pg_has_role(p.proowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl WHERE acl.grantee = r.oid)
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_monitor', changed.signature);
  END LOOP;
END $$;
