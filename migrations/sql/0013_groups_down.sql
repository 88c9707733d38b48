DROP TABLE pgdoc.group_positions;
