-- Reverts 0009_expiry.sql. CASCADE also drops the parts of indexes that need it; the rest of each index stays.
DROP FUNCTION pgdoc.expiry_time(jsonb, text[]) CASCADE;
DROP FUNCTION pgdoc.expiry_backlog, pgdoc.expire_batch, pgdoc.claim_expiry, pgdoc.expiring, pgdoc.expiry_obstacle,
  pgdoc.expiry_definition, pgdoc.time_of;
DROP TABLE pgdoc.expiry;
