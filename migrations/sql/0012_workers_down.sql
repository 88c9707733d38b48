DROP TABLE pgdoc.dead_letters;
DROP TABLE pgdoc.handlers;
