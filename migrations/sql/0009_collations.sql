-- Collations of pgdoc's own, by Unicode data that are pinned here: they mean the same on every server and in Python
-- (pgdoc/query/filters/folding.py), and no upgrade of ICU or of the C library can damage an index on them.
--
-- Each character is replaced by its lower case, decomposed into a letter and its accents. `ci_ai` compares the letters,
-- `ci` the letters and then the accents.

DO $do$
DECLARE
    -- First and last code point, the step between them, and the distance to the lower case; all hexadecimal.
    one_letter text := '41-5A+20 B5+307 C0-DE/2+20 C1-D6+20 D8-DE+20 100-12E/2+1 132-136/2+1 139-147/2+1 14A-176/2+1 178-79
        179-17D/2+1 17F-10C 181+D2 182-184/2+1 186+CE 187+1 189-18A+CD 18B+1 18E+4F 18F+CA 190+CB 191+1 193+CD 194+CF
        196+D3 197+D1 198+1 19C+D3 19D+D5 19F+D6 1A0-1A4/2+1 1A6+DA 1A7+1 1A9+DA 1AC+1 1AE+DA 1AF+1 1B1-1B2+D9
        1B3-1B5/2+1 1B7+DB 1B8+1 1BC+1 1C4+2 1C5+1 1C7+2 1C8+1 1CA+2 1CB-1DB/2+1 1DE-1EE/2+1 1F1+2 1F2-1F4/2+1 1F6-61
        1F7-38 1F8-21E/2+1 220-82 222-232/2+1 23A+2A2B 23B+1 23D-A3 23E+2A28 241+1 243-C3 244+45 245+47 246-24E/2+1
        370-372/2+1 376+1 37F+74 386+26 388-38A+25 38C+40 38E-38F+3F 391-3AB/2+20 392-3A1+20 3A3-3AB+20 3C2+1 3CF+8
        3D0-1E 3D1-19 3D5-F 3D6-16 3D8-3EE/2+1 3F0-36 3F1-30 3F4-3C 3F5-40 3F7+1 3F9-7 3FA+1 3FD-3FF-82 400-40F+50
        410-42F+20 460-480/2+1 48A-4BE/2+1 4C0+F 4C1-4CD/2+1 4D0-52E/2+1 531-556+30 10A0-10C5+1C60 10C7+1C60 10CD+1C60
        13F8-13FD-8 1C80-184E 1C81-184D 1C82-1844 1C83-1C84-1842 1C85-1843 1C86-183C 1C87-1824 1C88+89C3 1C90-1CBA-BC0
        1CBD-1CBF-BC0 1E00-1E94/2+1 1E9B-3A 1EA0-1EFE/2+1 1F08-1F0F-8 1F18-1F1D-8 1F28-1F2F-8 1F38-1F3F-8 1F48-1F4D-8
        1F59-1F5F/2-8 1F68-1F6F-8 1FB8-1FB9-8 1FBA-1FBB-4A 1FBE-1C05 1FC8-1FCB-56 1FD8-1FD9-8 1FDA-1FDB-64 1FE8-1FE9-8
        1FEA-1FEB-70 1FEC-7 1FF8-1FF9-80 1FFA-1FFB-7E 2126-1D5D 212A-20BF 212B-2046 2132+1C 2160-216F+10 2183+1
        24B6-24CF+1A 2C00-2C2F+30 2C60+1 2C62-29F7 2C63-EE6 2C64-29E7 2C67-2C6B/2+1 2C6D-2A1C 2C6E-29FD 2C6F-2A1F
        2C70-2A1E 2C72+1 2C75+1 2C7E-2C7F-2A3F 2C80-2CE2/2+1 2CEB-2CED/2+1 2CF2+1 A640-A66C/2+1 A680-A69A/2+1
        A722-A72E/2+1 A732-A76E/2+1 A779-A77B/2+1 A77D-8A04 A77E-A786/2+1 A78B+1 A78D-A528 A790-A792/2+1 A796-A7A8/2+1
        A7AA-A544 A7AB-A54F A7AC-A54B A7AD-A541 A7AE-A544 A7B0-A512 A7B1-A52A A7B2-A515 A7B3+3A0 A7B4-A7C2/2+1 A7C4-30
        A7C5-A543 A7C6-8A38 A7C7-A7C9/2+1 A7D0+1 A7D6-A7D8/2+1 A7F5+1 AB70-ABBF-97D0 FF21-FF3A+20 10400-10427+28
        104B0-104D3+28 10570-10594/2+27 10571-1057A+27 1057C-10594/2+27 1057D-1058A+27 1058C-10594/2+27 1058D-10592+27
        10594-10595+27 10C80-10CB2+40 118A0-118BF+20 16E40-16E5F+20 1E900-1E921+22 1E9E-1DBF 1F88-1F8F-8 1F98-1F9F-8
        1FA8-1FAF-8 1FBC-9 1FCC-9 1FFC-9';
    more_letters text := '130=69+307 149=2BC+6E 1F0=6A+30C 390=3B9+308+301 3B0=3C5+308+301 587=565+582 1E96=68+331 1E97=74+308
        1E98=77+30A 1E99=79+30A 1E9A=61+2BE 1F50=3C5+313 1F52=3C5+313+300 1F54=3C5+313+301 1F56=3C5+313+342
        1FB6=3B1+342 1FC6=3B7+342 1FD2=3B9+308+300 1FD3=3B9+308+301 1FD6=3B9+342 1FD7=3B9+308+342 1FE2=3C5+308+300
        1FE3=3C5+308+301 1FE4=3C1+313 1FE6=3C5+342 1FE7=3C5+308+342 1FF6=3C9+342 FB00=66+66 FB01=66+69 FB02=66+6C
        FB03=66+66+69 FB04=66+66+6C FB05=73+74 FB06=73+74 FB13=574+576 FB14=574+565 FB15=574+56B FB16=57E+576
        FB17=574+56D';
    -- Letters that ICU compares as others with an accent, although Unicode does not decompose them.
    overlaid text := 'DF=73+34F+73 E6=61+34F+65 F0=64+34F F8=6F+338 111=64+335 127=68+335 142=6C+335 153=6F+34F+65 491=433+34F';
    found jsonb;
BEGIN
    WITH run AS (
        SELECT ('x' || lpad(part[1], 8, '0'))::bit(32)::integer AS first,
            ('x' || lpad(coalesce(part[2], part[1]), 8, '0'))::bit(32)::integer AS last,
            coalesce(part[3], '1')::integer AS step,
            (part[4] || '1')::integer * ('x' || lpad(part[5], 8, '0'))::bit(32)::integer AS distance
        FROM regexp_matches(one_letter, '([0-9A-F]+)(?:-([0-9A-F]+))?(?:/(2))?([+-])([0-9A-F]+)', 'g') AS found(part)
    ), listed AS (
        SELECT kind, chr(('x' || lpad(split_part(entry, '=', 1), 8, '0'))::bit(32)::integer) AS letter,
            (SELECT string_agg(chr(('x' || lpad(code, 8, '0'))::bit(32)::integer), '' ORDER BY place)
             FROM regexp_split_to_table(split_part(entry, '=', 2), '[+]') WITH ORDINALITY AS each(code, place)) AS parts
        FROM (VALUES ('folded', more_letters), ('parts', overlaid)) AS list(kind, entries)
            CROSS JOIN LATERAL regexp_split_to_table(entries, '[[:space:]]+') AS entry
    ), folded AS (
        SELECT chr(code) AS letter, chr(code + distance) AS form
        FROM run CROSS JOIN LATERAL generate_series(first, last, step) AS code
        UNION  -- runs overlap
        SELECT letter, parts FROM listed WHERE kind = 'folded'
    ), part AS (
        SELECT chr(code) AS letter, normalize(chr(code), NFD) AS form
        FROM (VALUES (x'C0'::integer, x'24F'::integer), (x'370'::integer, x'3FF'::integer),
                     (x'43A'::integer, x'52F'::integer), (x'1E00'::integer, x'1EFF'::integer),
                     (x'1F00'::integer, x'1FFF'::integer)) AS block(first, last)
            CROSS JOIN LATERAL generate_series(first, last) AS code
        WHERE normalize(chr(code), NFD) COLLATE "C" <> chr(code) COLLATE "C"
        UNION ALL
        SELECT letter, parts FROM listed WHERE kind = 'parts'
    ), every AS (
        SELECT letter, form FROM folded
        UNION ALL
        SELECT letter, form FROM part WHERE NOT EXISTS (
            SELECT FROM folded WHERE folded.letter COLLATE "C" = part.letter COLLATE "C")
    ), once AS (
        SELECT every.letter, string_agg(coalesce(part.form, each.item), '' ORDER BY place) AS form
        FROM every CROSS JOIN LATERAL unnest(string_to_array(every.form, NULL)) WITH ORDINALITY AS each(item, place)
            LEFT JOIN part ON part.letter COLLATE "C" = each.item COLLATE "C"
        GROUP BY every.letter COLLATE "C", every.letter
    ), twice AS (
        SELECT once.letter, string_agg(coalesce(part.form, each.item), '' ORDER BY place) AS form
        FROM once CROSS JOIN LATERAL unnest(string_to_array(once.form, NULL)) WITH ORDINALITY AS each(item, place)
            LEFT JOIN part ON part.letter COLLATE "C" = each.item COLLATE "C"
        GROUP BY once.letter COLLATE "C", once.letter
    )
    SELECT jsonb_object_agg(letter, form) INTO found FROM twice;
    EXECUTE format($create$
CREATE FUNCTION pgdoc.decomposed_piece(value text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $body$
DECLARE
    rest pg_catalog.text := pg_catalog.regexp_replace(value COLLATE pg_catalog."C", E'[\\x01-\\x7f]+', '', 'g');
    letter pg_catalog.text;
    result pg_catalog.text := pg_catalog.lower(value COLLATE pg_catalog."C");
BEGIN
    -- One letter after the other: what replaces a letter contains nothing to replace.
    WHILE rest OPERATOR(pg_catalog.<>) '' LOOP
        letter := pg_catalog.left(rest, 1);
        rest := pg_catalog.replace(rest COLLATE pg_catalog."C", letter, '');
        IF %1$L::pg_catalog.jsonb OPERATOR(pg_catalog.?) letter THEN
            result := pg_catalog.replace(result COLLATE pg_catalog."C", letter, %1$L::pg_catalog.jsonb OPERATOR(pg_catalog.->>) letter);
        END IF;
    END LOOP;
    RETURN result;
END
$body$;
$create$, found);
END
$do$;
COMMENT ON FUNCTION pgdoc.decomposed_piece IS 'As decomposed, for a text of some kilobytes';

CREATE FUNCTION pgdoc.decomposed(value text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    size integer := pg_catalog.octet_length(value);
    bytes pg_catalog.bytea;
    start integer := 0;
    ending integer;
    parts pg_catalog.text[] := '{}';
BEGIN
    IF size OPERATOR(pg_catalog.=) pg_catalog.length(value) THEN
        RETURN pg_catalog.lower(value COLLATE pg_catalog."C");
    ELSIF size OPERATOR(pg_catalog.<=) 8192 THEN
        RETURN pgdoc.decomposed_piece(value);
    END IF;
    -- In pieces, since the time for one grows with its length times the number of different letters.
    bytes := pg_catalog.convert_to(value, 'UTF8');
    WHILE start OPERATOR(pg_catalog.<) size LOOP
        ending := least(start OPERATOR(pg_catalog.+) 8192, size);
        WHILE ending OPERATOR(pg_catalog.<) size
            AND pg_catalog.get_byte(bytes, ending) OPERATOR(pg_catalog.&) 192 OPERATOR(pg_catalog.=) 128 LOOP
            ending := ending OPERATOR(pg_catalog.-) 1;  -- not inside a character
        END LOOP;
        parts := parts OPERATOR(pg_catalog.||) pgdoc.decomposed_piece(pg_catalog.convert_from(
            pg_catalog.substr(bytes, start OPERATOR(pg_catalog.+) 1, ending OPERATOR(pg_catalog.-) start), 'UTF8'));
        start := ending;
    END LOOP;
    RETURN pg_catalog.array_to_string(parts, '');
END
$$;
COMMENT ON FUNCTION pgdoc.decomposed IS 'The text with each letter in lower case, followed by its accents';

CREATE FUNCTION pgdoc.folded(value text, collation_name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    whole pg_catalog.text := pgdoc.decomposed(value);
    letters pg_catalog.text := whole;
BEGIN
    IF pg_catalog.octet_length(whole) OPERATOR(pg_catalog.<>) pg_catalog.length(whole) THEN
        letters := pg_catalog.regexp_replace(whole COLLATE pg_catalog."C", E'[\\u0300-\\u036f]+', '', 'g');
    END IF;
    RETURN CASE WHEN collation_name OPERATOR(pg_catalog.=) 'ci'
            AND pg_catalog.length(letters) OPERATOR(pg_catalog.<>) pg_catalog.length(whole)
        THEN letters OPERATOR(pg_catalog.||) E'\x01' OPERATOR(pg_catalog.||) whole ELSE letters END;
END
$$;
COMMENT ON FUNCTION pgdoc.folded IS
    'What a text compares as under the collation ci (regardless of case) or ci_ai (regardless of case and accents)';

CREATE FUNCTION pgdoc.collated_part(value jsonb, collation_name text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
BEGIN
    IF kind OPERATOR(pg_catalog.=) 'string' THEN
        RETURN pg_catalog.to_jsonb(pgdoc.folded(value OPERATOR(pg_catalog.#>>) '{}', collation_name));
    ELSIF kind OPERATOR(pg_catalog.=) 'array' THEN
        RETURN (
            SELECT coalesce(pg_catalog.jsonb_agg(pgdoc.collated_part(item, collation_name) ORDER BY place), '[]')
            FROM pg_catalog.jsonb_array_elements(value) WITH ORDINALITY AS each(item, place));
    ELSIF kind OPERATOR(pg_catalog.=) 'object' THEN
        RETURN (
            SELECT coalesce(pg_catalog.jsonb_object_agg(key, pgdoc.collated_part(field, collation_name)), '{}')
            FROM pg_catalog.jsonb_each(value) AS each(key, field));
    END IF;
    RETURN value;
END
$$;
COMMENT ON FUNCTION pgdoc.collated_part IS 'As collated, for values of any depth';

CREATE FUNCTION pgdoc.collated(value jsonb, collation_name text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
BEGIN
    IF kind OPERATOR(pg_catalog.=) 'string' THEN
        RETURN pg_catalog.to_jsonb(pgdoc.folded(value OPERATOR(pg_catalog.#>>) '{}', collation_name));
    ELSIF kind OPERATOR(pg_catalog.=) ANY (ARRAY['object', 'array'])
        AND NOT value OPERATOR(pg_catalog.@?) '$.**{260}' THEN  -- deeper than pgdoc allows: it could exceed the stack
        RETURN pgdoc.collated_part(value, collation_name);
    END IF;
    RETURN value;
END
$$;
COMMENT ON FUNCTION pgdoc.collated IS 'The value with each text in it folded, for a comparison with another such value';

CREATE FUNCTION pgdoc.collated_field(data jsonb, field text, collation_name text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN data OPERATOR(pg_catalog.?) field
        THEN pg_catalog.jsonb_build_object(field, pgdoc.collated(data OPERATOR(pg_catalog.->) field, collation_name))
        ELSE '{}' END;
COMMENT ON FUNCTION pgdoc.collated_field IS 'A document with this field alone, collated';
