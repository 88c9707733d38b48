DELETE FROM pgdoc.published WHERE member IN (SELECT r.oid FROM pg_publication_rel r WHERE r.prrelid = 'pgdoc.messages'::regclass);
DROP FUNCTION pgdoc.publish(text, jsonb, text), pgdoc.publish_messages(boolean);
DROP TABLE pgdoc.messages;
DROP FUNCTION pgdoc.delete_message();
