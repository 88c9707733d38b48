DROP TABLE pgdoc.consumers;
