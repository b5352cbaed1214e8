-- What batches cost: an index that was missing, and work that nothing needs.

-- Whoever claims looks for all operations of a payment; the unique indexes are partial and cannot answer that.
CREATE INDEX operation_of_payment ON operation (payment_id);

-- Foreign messages alone have a source and an id.
ALTER TABLE payment DROP CONSTRAINT payment_event_source_event_id_key;
CREATE UNIQUE INDEX payment_of_event ON payment (event_source, event_id) WHERE event_id IS NOT NULL;

-- A card that came with its payment bears the payment's id; one that was stored before can be used in one payment only.
ALTER TABLE payment DROP CONSTRAINT payment_card_id_key;
CREATE UNIQUE INDEX payment_of_stored_card ON payment (card_id) WHERE card_id <> id;

-- Our reference is the operation's id without dashes, so it is unique as that is.
ALTER TABLE operation DROP CONSTRAINT operation_reference_key;
ALTER TABLE operation ADD CONSTRAINT operation_reference_is_its_id CHECK (reference = replace(id::text, '-', ''));

-- A payment pays its own bill and no other, so no index has to say so; without it a bill is paid in place.
ALTER TABLE bill DROP CONSTRAINT bill_paid_by_key;
ALTER TABLE bill SET (fillfactor = 90);

-- Nobody looks for an entry by its event or by its payment but `tolom verify`, which reads them all.
ALTER TABLE settlement_entry DROP CONSTRAINT settlement_entry_pkey;
ALTER TABLE settlement_entry DROP CONSTRAINT settlement_entry_operation_id_kind_key;
ALTER TABLE settlement_entry ADD PRIMARY KEY (operation_id, kind);
DROP INDEX settlement_entry_of_payment;

-- Keys are made in the order of their age.
DROP INDEX idempotency_key_age;
CREATE INDEX idempotency_key_age ON idempotency_key USING brin (created_at) WITH (autosummarize = on);

-- Their rows are written by the transaction that holds the payment's lock, next to a guarded write to it, or refer to it
-- through their operation; `tolom verify` looks for orphans. A foreign key would ask and lock once more for every row.
ALTER TABLE journal DROP CONSTRAINT journal_payment_id_fkey;
ALTER TABLE posting DROP CONSTRAINT posting_payment_id_fkey;
ALTER TABLE settlement_entry DROP CONSTRAINT settlement_entry_payment_id_fkey;

-- For the gauges: what is open in any way, and what contradicts itself.
DROP INDEX operation_due;
CREATE INDEX operation_due ON operation (next_attempt_at) WHERE outcome IS NULL OR outcome = 'unknown';
CREATE INDEX operation_in_conflict ON operation (payment_id) WHERE conflict IS NOT NULL;
