-- Workers: how far each handler of a consumer has come, and the events that a handler could not process.

-- A handler's own position counts while it is beyond that of its consumer. Its row is also what fences a former owner:
-- a process that begins to run a handler stores its claim here, which waits for the former owner's open transaction.
CREATE TABLE pgdoc.handlers (
  consumer    text NOT NULL REFERENCES pgdoc.consumers ON DELETE CASCADE,
  handler     text NOT NULL,
  epoch       bigint NOT NULL,
  holder      uuid NOT NULL,
  place       bigint[] NOT NULL DEFAULT '{}',
  begun_place bigint[] NOT NULL DEFAULT '{}',
  begun_times integer NOT NULL DEFAULT 0,
  tried_place bigint[] NOT NULL DEFAULT '{}',
  tried_times integer NOT NULL DEFAULT 0,
  PRIMARY KEY (consumer, handler)
) WITH (fillfactor = 50);  -- each batch is an UPDATE: free space in the page makes it a HOT update
COMMENT ON TABLE pgdoc.handlers IS 'how far each handler of a worker has come';
COMMENT ON COLUMN pgdoc.handlers.epoch IS 'the claim under which the handler runs, together with holder, as in pgdoc.owners';
COMMENT ON COLUMN pgdoc.handlers.place IS 'position of the last event that the handler has processed, in the format of consumers.place; the consumer''s position counts where it is further';
COMMENT ON COLUMN pgdoc.handlers.begun_place IS 'where the consumer stood when a process last began to run the handler';
COMMENT ON COLUMN pgdoc.handlers.begun_times IS 'how often in a row a process began there: an event may end each process';
COMMENT ON COLUMN pgdoc.handlers.tried_place IS 'the event that is being tried alone, after processes ended several times';
COMMENT ON COLUMN pgdoc.handlers.tried_times IS 'how often it was tried';

CREATE TABLE pgdoc.dead_letters (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  consumer    text NOT NULL,
  handler     text NOT NULL,
  state       text NOT NULL CHECK (state IN ('dead', 'parked', 'due')),
  event_type  text,
  collection  text NOT NULL,
  document_id text,
  token       text NOT NULL,
  event       json,
  error       text,
  traceback   text,
  attempts    integer NOT NULL DEFAULT 0,
  changed_at  timestamptz,
  stored_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  tried_at    timestamptz
);
CREATE INDEX ON pgdoc.dead_letters (consumer, handler, state, collection, document_id, id);
CREATE INDEX ON pgdoc.dead_letters (consumer, handler, id) WHERE state = 'due';
COMMENT ON TABLE pgdoc.dead_letters IS 'events that a handler of a worker could not process, and those that wait behind them';
COMMENT ON COLUMN pgdoc.dead_letters.state IS 'dead: the handler failed; parked: it waits behind a dead one of the same document; due: the handler is to try it again';
COMMENT ON COLUMN pgdoc.dead_letters.event_type IS 'null, as document_id and changed_at, if the event''s row can''t be read';
COMMENT ON COLUMN pgdoc.dead_letters.document_id IS 'null, too, for an event of the whole collection, or if it has more than 1,500 bytes: the event has it then';
COMMENT ON COLUMN pgdoc.dead_letters.token IS 'the resume token of the event';
COMMENT ON COLUMN pgdoc.dead_letters.event IS 'the event as event.to_json() prints it; null if that can''t be printed or stored';
COMMENT ON COLUMN pgdoc.dead_letters.changed_at IS 'when the change was committed';
COMMENT ON COLUMN pgdoc.dead_letters.stored_at IS 'when the handler gave up, or the event was parked';

-- A consumer that begins anew, or moves to another cluster, has new positions: a handler's own that is numerically beyond them
-- would let it skip events. So no statement that moves a consumer back can leave them, whichever version of pgdoc runs it. Nor
-- has its role to have rights on the table.
CREATE FUNCTION pgdoc.forget_handlers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM pgdoc.handlers WHERE consumer = NEW.name;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION pgdoc.forget_handlers IS 'deletes the positions of the handlers of a consumer that does not go on from its own';
CREATE TRIGGER pgdoc_forget_handlers AFTER UPDATE ON pgdoc.consumers FOR EACH ROW
WHEN (NEW.recreated OPERATOR(pg_catalog.<>) OLD.recreated OR NEW.place OPERATOR(pg_catalog.<) OLD.place
  OR NEW.system_id OPERATOR(pg_catalog.<>) OLD.system_id OR NEW.database_oid OPERATOR(pg_catalog.<>) OLD.database_oid)
EXECUTE FUNCTION pgdoc.forget_handlers();

-- Members of pg_monitor execute it with the rights of the catalog's owner: the table contains documents.
CREATE FUNCTION pgdoc.dead_letter_metrics()
RETURNS TABLE (consumer text, handler text, state text, letters bigint, oldest timestamptz, schema_name text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT d.consumer, d.handler, d.state, count(*), min(d.stored_at),
    (SELECT c.schema_name FROM pgdoc.consumers c WHERE c.name = d.consumer)
  FROM pgdoc.dead_letters d
  GROUP BY d.consumer, d.handler, d.state
$$;
COMMENT ON FUNCTION pgdoc.dead_letter_metrics IS 'how many dead letters each handler has, without what is in them, for members of pg_monitor';
