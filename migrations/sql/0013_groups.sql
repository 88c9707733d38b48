-- Groups of readers of a log: how far the effects of each partition's events are stored in this database.

CREATE TABLE pgdoc.group_positions (
  log        text NOT NULL,
  group_name text NOT NULL,
  partition  integer NOT NULL,
  epoch      bigint NOT NULL,
  identity   text NOT NULL DEFAULT '',
  sequence   bigint NOT NULL DEFAULT 0,
  token      text NOT NULL DEFAULT '',
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (log, group_name, partition)
) WITH (fillfactor = 50);  -- each checkpoint is an UPDATE: free space in the page makes it a HOT update
COMMENT ON TABLE pgdoc.group_positions IS 'how far the effects of the events of a log are stored in this database, for each group of readers and partition';
COMMENT ON COLUMN pgdoc.group_positions.log IS 'the engine and the name of the log';
COMMENT ON COLUMN pgdoc.group_positions.epoch IS 'of the member that owns the partition: a former owner stores no more';
COMMENT ON COLUMN pgdoc.group_positions.identity IS 'of the log that has the sequence: another one if it was deleted and made again';
COMMENT ON COLUMN pgdoc.group_positions.token IS 'of the last event whose effect is stored; empty for none';
