-- What payers are told by mail beside receipts, and the receipts that their queue could not send.

CREATE TABLE notice (
    -- Also in the Message-ID: mail servers log that, and a payment's own id is leave to read the payment.
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    payment_id    uuid NOT NULL REFERENCES payment,
    -- unknown: not known yet, do not pay again. not_charged: it did not go through, or is given back.
    kind          text NOT NULL CHECK (kind IN ('unknown', 'not_charged')),
    created_at    timestamptz NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    next_try_at   timestamptz NOT NULL,
    -- One sender at a time; a sender that died is followed after this.
    sending_until timestamptz,
    sent_at       timestamptz,
    -- Refused by the mail server, or tried for too long.
    given_up_at   timestamptz,
    -- Of an unknown one: its payment has come to an end, and it is not sent any more.
    answered_at   timestamptz CHECK (answered_at IS NULL OR kind = 'unknown'),
    -- Each is told once.
    UNIQUE (payment_id, kind)
);
CREATE INDEX notice_due ON notice (next_try_at) WHERE sent_at IS NULL AND given_up_at IS NULL AND answered_at IS NULL;
CREATE INDEX notice_unanswered ON notice (payment_id) WHERE kind = 'unknown' AND answered_at IS NULL;
-- What is looked for, among millions: a payment enters each of these statuses with its `updated_at`.
CREATE INDEX payment_unknown ON payment (updated_at) WHERE status IN ('unknown', 'review');
CREATE INDEX payment_reversed ON payment (updated_at) WHERE status = 'reversed';

-- Tries beside those of the queue. Null: none yet.
ALTER TABLE receipt ADD COLUMN attempts integer NOT NULL DEFAULT 0;
ALTER TABLE receipt ADD COLUMN next_try_at timestamptz;
ALTER TABLE receipt ADD COLUMN given_up_at timestamptz;
CREATE INDEX receipt_unsent ON receipt (next_try_at, issued_at) WHERE sent_at IS NULL AND given_up_at IS NULL;
