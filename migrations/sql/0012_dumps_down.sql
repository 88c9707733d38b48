ALTER FUNCTION pgdoc.sort_key(jsonb) SECURITY INVOKER;
ALTER FUNCTION pgdoc.sort_rest(jsonb) SECURITY INVOKER;
ALTER FUNCTION pgdoc.found_keys(jsonb, text[]) SECURITY INVOKER;
ALTER FUNCTION pgdoc.key_span(jsonb, text[]) SECURITY INVOKER;
ALTER FUNCTION pgdoc.expiry_time(jsonb, text[]) SECURITY INVOKER;
ALTER FUNCTION pgdoc.collated(jsonb, text) SECURITY INVOKER;
