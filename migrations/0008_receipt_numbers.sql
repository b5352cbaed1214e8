-- Who records a capture tells its receipt's number in the same breath as it writes it, and so has to know it before.
CREATE FUNCTION next_receipt_number() RETURNS text LANGUAGE sql VOLATILE AS
    $$ SELECT 'TLM-' || lpad(nextval('receipt_number')::text, 10, '0') $$;
ALTER TABLE receipt ALTER COLUMN number SET DEFAULT next_receipt_number();
