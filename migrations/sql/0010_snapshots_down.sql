-- Reverts 0010_snapshots.sql.
DROP FUNCTION pgdoc.read_table(text, text, text[], int, bigint), pgdoc.key_orders(regclass), pgdoc.type_order(oid, oid),
  pgdoc.base_type(oid);
