-- Durable consumers: whose each is, and how far it has come.

CREATE TABLE pgdoc.consumers (
  name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9_]{1,40}$'),
  schema_name text NOT NULL,
  epoch       bigint NOT NULL,
  place       bigint[] NOT NULL,
  snapshot    text,
  system_id   text NOT NULL,
  timeline    bigint NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);  -- each checkpoint is an UPDATE, and shall find room in its page
COMMENT ON TABLE pgdoc.consumers IS 'the durable consumers of change streams; each has the slot pgdoc_<database oid>_<name>';
COMMENT ON COLUMN pgdoc.consumers.epoch IS 'moves on when another process takes over: checkpoints of earlier ones fail';
COMMENT ON COLUMN pgdoc.consumers.place IS 'up to where checkpoints have come: commit LSN, LSN, kind, ordinal, inside a snapshot also how many of its documents; empty while it is being made';
COMMENT ON COLUMN pgdoc.consumers.snapshot IS 'how far the snapshot had come there; empty where it has to begin, null where there is none, or it is complete';

-- What the owner writes every few seconds stands apart, where it meets no transaction that makes a checkpoint.
CREATE TABLE pgdoc.consumer_progress (
  name          text PRIMARY KEY REFERENCES pgdoc.consumers ON DELETE CASCADE,
  acknowledged  bigint[] NOT NULL,
  snapshot      text,
  system_id     text NOT NULL,
  timeline      bigint NOT NULL,
  waiting_since timestamptz,
  seen_at       timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE pgdoc.consumer_progress IS 'how far each consumer had come a few seconds ago';
COMMENT ON COLUMN pgdoc.consumer_progress.acknowledged IS 'up to where events were acknowledged, as consumers.place';
COMMENT ON COLUMN pgdoc.consumer_progress.snapshot IS 'how far the snapshot had come there, as consumers.snapshot';
COMMENT ON COLUMN pgdoc.consumer_progress.waiting_since IS 'when the oldest event committed that was given and not acknowledged';
COMMENT ON COLUMN pgdoc.consumer_progress.seen_at IS 'when the consumer''s process last wrote here';

GRANT SELECT ON pgdoc.consumers, pgdoc.consumer_progress TO PUBLIC;
