-- Receipts beyond the mail that brings each once: the one by SMS, and mails sent again because the payer asked.

CREATE TABLE receipt_copy (
    -- The gateway's idempotency key, or in the Message-ID: a copy that is tried again has it again.
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    payment_id    uuid NOT NULL REFERENCES receipt,
    -- sms: the receipt as a short message, once. again: the mail once more, on request.
    kind          text NOT NULL CHECK (kind IN ('sms', 'again')),
    created_at    timestamptz NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    next_try_at   timestamptz NOT NULL,
    -- One sender at a time; a sender that died is followed after this.
    sending_until timestamptz,
    sent_at       timestamptz,
    -- Refused, or tried for too long.
    given_up_at   timestamptz
);
CREATE UNIQUE INDEX receipt_copy_one_sms ON receipt_copy (payment_id) WHERE kind = 'sms';
CREATE INDEX receipt_copy_asked ON receipt_copy (payment_id, created_at) WHERE kind = 'again';
CREATE INDEX receipt_copy_due ON receipt_copy (kind, next_try_at) WHERE sent_at IS NULL AND given_up_at IS NULL;
