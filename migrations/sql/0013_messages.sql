-- Events of the application's own, in order with the changes of their transaction. The INSERT of a row is the event, which
-- streams find in the WAL; its transaction deletes the row again, so the table stays empty. A logical message would need no
-- table, but any role can send one, and only what a granted role has written is believed.

CREATE TABLE pgdoc.messages (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic   text COLLATE "C" NOT NULL CONSTRAINT pgdoc_topic
    CHECK (octet_length(topic) <= 200 AND topic ~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$'),
  key     text COLLATE "C" CONSTRAINT pgdoc_key CHECK (octet_length(key) BETWEEN 1 AND 1024),
  payload jsonb NOT NULL CONSTRAINT pgdoc_payload  -- 64 MiB of text, see pgdoc.size_condition
    CHECK (pg_column_size(payload || '{}') <= 6710 OR octet_length(payload::text) <= 67108864)
) WITH (  -- its rows are dead as soon as they commit
  autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 1000, toast.autovacuum_vacuum_scale_factor = 0
);
COMMENT ON TABLE pgdoc.messages IS 'each INSERT is an event of the application''s own, which its transaction deletes at once: the table is always empty';
COMMENT ON COLUMN pgdoc.messages.id IS 'lets the row be deleted, negative if pgdoc.publish does it; grant INSERT on the other columns only, since a row with a given id can make others wait';
COMMENT ON COLUMN pgdoc.messages.topic IS 'words of letters, digits, _ and - with dots between them';
COMMENT ON COLUMN pgdoc.messages.key IS 'what the event is about; becomes its document_id';

-- For those who INSERT or COPY; with the rights of the owner, so that they need no others. A plan that is made while the table
-- is small would read it from its beginning, and is kept when thousands of dead rows wait for VACUUM there.
CREATE FUNCTION pgdoc.delete_message() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
  DELETE FROM pgdoc.messages WHERE id = NEW.id;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION pgdoc.delete_message() FROM PUBLIC;
CREATE TRIGGER pgdoc_delete AFTER INSERT ON pgdoc.messages FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION pgdoc.delete_message();
ALTER TABLE pgdoc.messages ENABLE ALWAYS TRIGGER pgdoc_delete;  -- also under session_replication_role = replica

-- With the rights of the owner, for roles to which the owner has granted EXECUTE. It finds its row by place: under SERIALIZABLE,
-- what the trigger reads of the index would make transactions that publish at the same time fail. So would reading a table of
-- few pages from its beginning, which PostgreSQL finds cheaper.
CREATE FUNCTION pgdoc.publish(topic text, payload jsonb, key text DEFAULT NULL) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  place tid;
BEGIN
  INSERT INTO pgdoc.messages AS m (id, topic, key, payload) OVERRIDING SYSTEM VALUE
  VALUES (-nextval('pgdoc.messages_id_seq'), publish.topic, publish.key, publish.payload)
  RETURNING m.ctid INTO place;
  IF place IS NULL THEN
    RAISE EXCEPTION 'a trigger of pgdoc.messages drops the event: let the catalog''s owner remove it' USING ERRCODE = 'triggered_action_exception';
  END IF;
  DELETE FROM pgdoc.messages m WHERE m.ctid = place;
END $$;
REVOKE ALL ON FUNCTION pgdoc.publish(text, jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION pgdoc.publish(text, jsonb, text) IS 'publishes an event of the application''s own, in order with the changes of the transaction';

-- Adds the table to the publication, of which pgoutput sends the tables. SHARE ROW EXCLUSIVE waits for every open
-- transaction that has published, so that each one that commits after the recorded LSN is sent whole.
CREATE FUNCTION pgdoc.publish_messages(is_new boolean DEFAULT false) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = 'pgdoc' AND r.prrelid = 'pgdoc.messages'::regclass) THEN
    RETURN;
  END IF;
  PERFORM pgdoc.check_publication_owner();
  LOCK TABLE pgdoc.messages IN SHARE ROW EXCLUSIVE MODE;
  ALTER PUBLICATION pgdoc ADD TABLE pgdoc.messages;
  INSERT INTO pgdoc.published  -- only streams on topics look for this name: to them, events may be missing before
  SELECT r.oid, 'pgdoc', 'messages', pg_current_wal_insert_lsn()
  FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
  WHERE p.pubname = 'pgdoc' AND r.prrelid = 'pgdoc.messages'::regclass AND NOT is_new
  ON CONFLICT (member) DO NOTHING;
END $$;
COMMENT ON FUNCTION pgdoc.publish_messages IS 'adds pgdoc.messages to the publication, if it lacks it';

DO $$
BEGIN
  PERFORM pgdoc.publish_messages(is_new => true);
EXCEPTION WHEN undefined_object OR insufficient_privilege OR object_not_in_prerequisite_state THEN  -- the next stream on topics repairs it, or says what to do
  RAISE WARNING 'pgdoc.messages is not in the publication "pgdoc": %', SQLERRM;
END $$;
