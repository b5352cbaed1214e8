-- By what payments were tried, for the limits against stolen cards. Limits are counts over recent payments; only what the
-- payment itself does not know stands here, and no longer than a limit looks back.

-- Declines of a bill, the newest first; and all that are recent, for the gauge of what is shut.
CREATE INDEX payment_declined_of_bill ON payment (bill_code, updated_at) WHERE status = 'declined';
CREATE INDEX payment_declined ON payment (updated_at) WHERE status = 'declined';

-- Both unlogged, like the sealed cards: not in the WAL, on no replica, in no dump; a crash of the database forgets these
-- limits (not those by bill), and nothing else. Apart from payment, because what is personal must be deleted soon, and
-- because a row that is inserted costs less than one that is changed. No foreign keys: their locks would be logged.

-- From where: HMAC-SHA256 of the address and of the browser's cookie, by origin_key.
CREATE UNLOGGED TABLE payment_origin (
    payment_id uuid PRIMARY KEY,
    address    bytea NOT NULL CHECK (octet_length(address) = 32),
    device     bytea CHECK (octet_length(device) = 32),
    at         timestamptz NOT NULL
);
CREATE INDEX payment_origin_address ON payment_origin (address, at);
CREATE INDEX payment_origin_device ON payment_origin (device, at) WHERE device IS NOT NULL;
CREATE INDEX payment_origin_age ON payment_origin USING brin (at) WITH (autosummarize = on);

-- With which card: HMAC-SHA256 of its whole number, by a key that is a file of the authorize workers and never here.
CREATE UNLOGGED TABLE card_use (
    payment_id uuid PRIMARY KEY,
    card       bytea NOT NULL CHECK (octet_length(card) = 32),
    at         timestamptz NOT NULL
);
CREATE INDEX card_use_card ON card_use (card, at);
CREATE INDEX card_use_age ON card_use USING brin (at) WITH (autosummarize = on);

-- One key for all intakes of this installation, made here of two random UUIDs (244 bits from the server's strong source).
CREATE TABLE origin_key (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    key  bytea NOT NULL CHECK (octet_length(key) = 32)
);
INSERT INTO origin_key (key)
    SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));
