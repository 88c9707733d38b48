DROP FUNCTION pgdoc.dead_letter_metrics();
DROP TRIGGER pgdoc_forget_handlers ON pgdoc.consumers;
DROP FUNCTION pgdoc.forget_handlers();
DROP TABLE pgdoc.dead_letters;
DROP TABLE pgdoc.handlers;
