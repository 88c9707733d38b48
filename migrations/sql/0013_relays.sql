-- Relays: which entry of a log belongs to the position of the relay's consumer.

CREATE TABLE pgdoc.relays (
  consumer   text PRIMARY KEY REFERENCES pgdoc.consumers ON DELETE CASCADE,
  log        text NOT NULL,
  identity   text NOT NULL,
  sequence   bigint NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);  -- each checkpoint is an UPDATE: free space in the page makes it a HOT update
COMMENT ON TABLE pgdoc.relays IS 'which entry of its log belongs to the stored position of a relay''s consumer';
COMMENT ON COLUMN pgdoc.relays.log IS 'the URL of the log, without user, password and options';
COMMENT ON COLUMN pgdoc.relays.identity IS 'of the log: another one if it was deleted and made again';
COMMENT ON COLUMN pgdoc.relays.sequence IS 'of the last entry of the events up to the consumer''s position';

-- A consumer that begins anew has left out events, or moved to other positions: what its log has does not belong to them.
CREATE OR REPLACE FUNCTION pgdoc.forget_handlers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM pgdoc.handlers WHERE consumer = NEW.name;
  DELETE FROM pgdoc.relays WHERE consumer = NEW.name;
  RETURN NULL;
END $$;

-- Handlers of groups: such a row belongs to a partition of a log (`group#partition`), and to no consumer. So the rows of a
-- consumer that is dropped go by a trigger, not by a foreign key.
ALTER TABLE pgdoc.handlers DROP CONSTRAINT handlers_consumer_fkey;
CREATE FUNCTION pgdoc.forget_dropped() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM pgdoc.handlers WHERE consumer = OLD.name;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION pgdoc.forget_dropped IS 'deletes the positions of the handlers of a consumer that is dropped';
CREATE TRIGGER pgdoc_forget_dropped AFTER DELETE ON pgdoc.consumers FOR EACH ROW EXECUTE FUNCTION pgdoc.forget_dropped();
ALTER TABLE pgdoc.handlers ADD COLUMN log text;
COMMENT ON COLUMN pgdoc.handlers.log IS 'for a group: the log that has the events, and the database and cluster they are of';
COMMENT ON COLUMN pgdoc.handlers.consumer IS 'the consumer, or the group and the partition of a log, as group#partition';
