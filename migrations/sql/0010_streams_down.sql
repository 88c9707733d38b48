-- Reverts 0010_streams.sql, except for what 0010_tables_down.sql replaces.
DROP TRIGGER pgdoc_announce ON pgdoc.registry;
DROP FUNCTION pgdoc.announce_table(), pgdoc.watchable(text, text[]), pgdoc.loses_values(),
  pgdoc.is_wanted(text, text[], text, text, boolean);
DROP TABLE pgdoc.registering;
