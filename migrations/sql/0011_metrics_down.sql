DROP FUNCTION pgdoc.consumer_metrics();
ALTER TABLE pgdoc.consumers DROP COLUMN recreated;
