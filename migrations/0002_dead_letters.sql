-- Dead letters, parked: what left the broker's dead queues to be looked at, replayed or discarded.

-- A row for each message, however often it dies. Bodies and texts come from anybody: card data in them is masked before
-- they are stored, and what is masked, or cut, is no longer what was sent and cannot be replayed.
CREATE TABLE dead_letter (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The queue it died of, without prefix; a replay goes there.
    queue        text NOT NULL,
    message_id   text NOT NULL,
    -- Of the body as it is stored: a hash of a card's number would betray it.
    body_sha256  bytea NOT NULL CHECK (octet_length(body_sha256) = 32),
    body         bytea NOT NULL,
    headers      jsonb NOT NULL,
    traceparent  text,
    -- Of the CloudEvent, where it can be read. The payment need not exist.
    event_type   text,
    payment      uuid,
    -- Why it died last.
    reason       text NOT NULL,
    -- Every failure, oldest first: {attempt, at, reason}.
    reasons      jsonb NOT NULL,
    -- Retries before it died last.
    attempts     integer NOT NULL,
    first_at     timestamptz NOT NULL,
    last_at      timestamptz NOT NULL,
    -- How often it died.
    times        integer NOT NULL DEFAULT 1,
    state        text NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'replayed', 'discarded')),
    -- When it was replayed or discarded.
    settled_at   timestamptz CHECK ((settled_at IS NULL) = (state = 'parked')),
    unreplayable text,
    parked_at    timestamptz NOT NULL,
    UNIQUE (queue, message_id, body_sha256)
);
CREATE INDEX dead_letter_parked ON dead_letter (queue, last_at) WHERE state = 'parked';
CREATE INDEX dead_letter_of_payment ON dead_letter (payment) WHERE payment IS NOT NULL;
CREATE INDEX dead_letter_settled ON dead_letter (settled_at) WHERE state <> 'parked';

-- What people did with dead letters. It outlives the letters, so it repeats what they were.
CREATE TABLE dead_letter_audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter     bigint NOT NULL,
    queue      text NOT NULL,
    message_id text NOT NULL,
    payment    uuid,
    reason     text NOT NULL,
    action     text NOT NULL CHECK (action IN ('replayed', 'discarded')),
    -- Who says to have done it, and the account of the operating system that did.
    who        text NOT NULL,
    os_user    text NOT NULL,
    why        text,
    at         timestamptz NOT NULL
);
CREATE INDEX dead_letter_audit_of_letter ON dead_letter_audit (letter);
CREATE INDEX dead_letter_audit_age ON dead_letter_audit (at);
