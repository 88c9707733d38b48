DROP TABLE pgdoc.unreadable;
