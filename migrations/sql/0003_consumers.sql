-- Durable consumers: the current epoch and the position of each.

CREATE TABLE pgdoc.consumers (
  name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9_]{1,40}$'),
  schema_name text NOT NULL,
  epoch       bigint NOT NULL,
  place       bigint[] NOT NULL,
  snapshot    text,
  system_id   text NOT NULL,
  timeline    bigint NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);  -- each checkpoint is an UPDATE: free space in the page makes it a HOT update
COMMENT ON TABLE pgdoc.consumers IS 'the durable consumers of change streams; each has the slot pgdoc_<database oid>_<name>';
COMMENT ON COLUMN pgdoc.consumers.epoch IS 'increases when another process takes over, which makes checkpoints of earlier owners fail';
COMMENT ON COLUMN pgdoc.consumers.place IS 'position of the last checkpoint: commit LSN, LSN, kind, ordinal, and inside a snapshot the number of documents; empty while the consumer is being created';
COMMENT ON COLUMN pgdoc.consumers.snapshot IS 'progress of the snapshot at that position; empty if it has yet to start, null if there is none or it is complete';

-- The owner writes here every few seconds. It is a separate table so that these writes never wait for a transaction that
-- holds the lock of a checkpoint on pgdoc.consumers.
CREATE TABLE pgdoc.consumer_progress (
  name          text PRIMARY KEY REFERENCES pgdoc.consumers ON DELETE CASCADE,
  acknowledged  bigint[] NOT NULL,
  snapshot      text,
  system_id     text NOT NULL,
  timeline      bigint NOT NULL,
  waiting_since timestamptz,
  seen_at       timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE pgdoc.consumer_progress IS 'progress of each consumer, saved every few seconds';
COMMENT ON COLUMN pgdoc.consumer_progress.acknowledged IS 'position up to which events are acknowledged, in the format of consumers.place';
COMMENT ON COLUMN pgdoc.consumer_progress.snapshot IS 'progress of the snapshot at that position, in the format of consumers.snapshot';
COMMENT ON COLUMN pgdoc.consumer_progress.waiting_since IS 'commit time of the oldest event that is delivered but not acknowledged';
COMMENT ON COLUMN pgdoc.consumer_progress.seen_at IS 'when the consumer''s process last updated this row';

GRANT SELECT ON pgdoc.consumers, pgdoc.consumer_progress TO PUBLIC;
