ALTER TABLE pgdoc.consumer_progress DROP COLUMN database_oid;
ALTER TABLE pgdoc.consumers DROP COLUMN database_oid;
