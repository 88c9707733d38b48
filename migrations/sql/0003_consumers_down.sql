DROP TABLE pgdoc.consumer_progress, pgdoc.consumers;
