-- What a statement that writes counts on. One that reads, decides and then writes without locks must write all of what it
-- decided or nothing: somebody else may have been faster. Then the whole statement is undone, with the SQLSTATE that is
-- asked for.
CREATE FUNCTION must_hold(held bigint, wanted bigint, otherwise text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF held IS DISTINCT FROM wanted THEN
        RAISE EXCEPTION '% of % guarded writes held', held, wanted USING ERRCODE = otherwise;
    END IF;
    RETURN true;
END $$;
