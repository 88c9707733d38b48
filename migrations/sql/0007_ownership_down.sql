-- Consumers keep their positions. A process with an older version takes them over under the next epoch.

DROP FUNCTION pgdoc.end_index_build, pgdoc.begin_index_build, pgdoc.leave_hub, pgdoc.keeps_history, pgdoc.enter_hub,
  pgdoc.note_session, pgdoc.is_open;
DROP TABLE pgdoc.sessions;

DROP TRIGGER refuse_older_owner ON pgdoc.consumers;
DROP FUNCTION pgdoc.refuse_older_owner;
ALTER TABLE pgdoc.consumers DROP COLUMN holder;
DROP TABLE pgdoc.owners;
GRANT SELECT ON pgdoc.consumers, pgdoc.consumer_progress TO PUBLIC;
