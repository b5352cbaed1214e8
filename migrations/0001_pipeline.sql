-- The pipeline's tables. Words (status, kind, outcome) are text with checks, so that an operator can read them.

-- Who calls the API with a token: agencies issue bills, sites take payments, finance refunds. Tokens are stored as
-- SHA-256 only: they are random and long, so a slow hash would protect nothing.
CREATE TABLE api_client (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    kind        text NOT NULL CHECK (kind IN ('agency', 'site', 'finance')),
    name        text NOT NULL,
    token_hash  bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE bill (
    code         text PRIMARY KEY CHECK (code ~ '^[0-9]{6,20}$'),
    agency       text NOT NULL REFERENCES api_client,
    service      text NOT NULL,
    applicant    text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    valid_until  timestamptz NOT NULL,
    status       text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'paid', 'cancelled')),
    -- The payment of ours that paid it; null when it was paid by another channel.
    paid_by      uuid UNIQUE,
    paid_at      timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (paid_by IS NULL OR status = 'paid')
);

-- Every change of status that the code allows; a test holds it against the Rust match.
CREATE TABLE transition (
    from_status text NOT NULL,
    to_status   text NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO transition VALUES
    ('accepted', 'authorizing'), ('accepted', 'failed'),
    ('authorizing', 'authorized'), ('authorizing', 'captured'), ('authorizing', 'challenged'),
    ('authorizing', 'declined'), ('authorizing', 'unknown'), ('authorizing', 'failed'),
    ('challenged', 'authorizing'), ('challenged', 'declined'), ('challenged', 'unknown'), ('challenged', 'failed'),
    ('authorized', 'captured'), ('authorized', 'reversing'), ('authorized', 'review'),
    ('unknown', 'authorized'), ('unknown', 'captured'), ('unknown', 'challenged'), ('unknown', 'declined'),
    ('unknown', 'reversing'), ('unknown', 'failed'), ('unknown', 'review'),
    ('reversing', 'reversed'), ('reversing', 'captured'), ('reversing', 'review'),
    ('review', 'authorized'), ('review', 'captured'), ('review', 'declined'), ('review', 'reversed'),
    ('review', 'failed'),
    ('captured', 'settled');

CREATE TABLE payment (
    id                 uuid PRIMARY KEY,
    bill_code          text NOT NULL REFERENCES bill,
    status             text NOT NULL CHECK (status IN ('accepted', 'authorizing', 'challenged', 'authorized', 'unknown',
                           'reversing', 'review', 'captured', 'settled', 'declined', 'failed', 'reversed')),
    -- The status before this one: the pair must be a transition (null while accepted).
    previous_status    text,
    version            integer NOT NULL DEFAULT 1,
    amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
    currency           text NOT NULL,
    acquirer           text NOT NULL,
    -- Take the money in the authorization's own message.
    capture_at_once    boolean NOT NULL,
    -- The sealed card's id; the card itself leaves sealed_card in the claim.
    card_id            uuid NOT NULL UNIQUE,
    card_number_masked text,
    card_brand         text,
    payer_email        text NOT NULL,
    payer_phone        text NOT NULL,
    locale             text NOT NULL CHECK (locale IN ('ky', 'ru', 'en')),
    terms_version      text NOT NULL,
    authorization_code text,
    rrn                text,
    decline_reason     text,
    -- Why it failed or is in review, for people.
    note               text,
    -- The bank's confirmation that is asked for, and what the payer came back with.
    challenge          jsonb,
    challenge_response jsonb,
    challenge_until    timestamptz,
    traceparent        text,
    -- Who asked: an API client's id, or 'public' for the site; a foreign event's source and id.
    caller             text NOT NULL,
    event_source       text,
    event_id           text,
    accepted_at        timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    captured_at        timestamptz,
    FOREIGN KEY (previous_status, status) REFERENCES transition,
    CHECK (status = 'accepted' OR previous_status IS NOT NULL),
    UNIQUE (event_source, event_id)
);
-- Rule 2: one live payment per bill. A captured or settled payment stays live, so a bill is paid at most once.
CREATE UNIQUE INDEX payment_one_live_per_bill ON payment (bill_code)
    WHERE status NOT IN ('declined', 'failed', 'reversed');
-- What the resolve worker looks for, and what an operator asks: payments that are still on their way.
CREATE INDEX payment_on_its_way ON payment (updated_at)
    WHERE status IN ('accepted', 'authorizing', 'challenged', 'authorized', 'unknown', 'reversing', 'review');

CREATE TABLE operation (
    id                 uuid PRIMARY KEY,
    payment_id         uuid NOT NULL REFERENCES payment,
    kind               text NOT NULL CHECK (kind IN ('authorize', 'complete_challenge', 'capture', 'reverse', 'refund')),
    -- Ours, stored before it is sent; the acquirer's idempotency key.
    reference          text NOT NULL UNIQUE,
    -- The authorization's reference that this one is about.
    original_reference text NOT NULL,
    acquirer           text NOT NULL,
    amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
    currency           text NOT NULL,
    -- Null while nothing is known.
    outcome            text CHECK (outcome IN ('approved', 'challenged', 'declined', 'not_sent', 'unknown')),
    detail             jsonb,
    -- A reversal has taken over: its acknowledgement settles this operation.
    closing            boolean NOT NULL DEFAULT false,
    -- Set when two reports contradict each other; a person has to look.
    conflict           text,
    -- The claim: who may send, and until when. Null while nobody may.
    owner              text,
    send_before        timestamptz,
    attempts           integer NOT NULL DEFAULT 0,
    -- When resolve may touch it: the end of the claim's lease, or the next rung of the ladder.
    next_attempt_at    timestamptz NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    completed_at       timestamptz
);
-- At most one money-moving operation of a payment is open.
CREATE UNIQUE INDEX operation_one_open_per_payment ON operation (payment_id)
    WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing;
CREATE UNIQUE INDEX operation_one_per_kind ON operation (payment_id, kind)
    WHERE kind <> 'refund' AND NOT (kind = 'authorize' AND outcome IS NOT DISTINCT FROM 'not_sent');
CREATE INDEX operation_due ON operation (next_attempt_at)
    WHERE (outcome IS NULL OR outcome = 'unknown') AND NOT closing;

-- Everything that happened to a payment, absorbed news included.
CREATE TABLE journal (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id   uuid NOT NULL REFERENCES payment,
    version      integer NOT NULL,
    event        text NOT NULL,
    from_status  text,
    to_status    text NOT NULL,
    operation_id uuid,
    -- Which role, or which person, and why.
    actor        text NOT NULL,
    detail       text,
    at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX journal_of_payment ON journal (payment_id);

-- The ledger: each row debits one account and credits another.
CREATE TABLE posting (
    operation_id   uuid NOT NULL REFERENCES operation,
    kind           text NOT NULL CHECK (kind IN ('hold', 'release', 'capture', 'reversal', 'refund')),
    payment_id     uuid NOT NULL REFERENCES payment,
    debit_account  text NOT NULL,
    credit_account text NOT NULL CHECK (credit_account <> debit_account),
    amount_minor   bigint NOT NULL CHECK (amount_minor > 0),
    currency       text NOT NULL,
    -- The acquirer's time, and its day in Asia/Bishkek.
    at             timestamptz NOT NULL,
    day            date NOT NULL,
    PRIMARY KEY (operation_id, kind)
);
CREATE INDEX posting_of_payment ON posting (payment_id);

-- What finance was told; the id is the event's. Sent once its outbox row is gone.
CREATE TABLE settlement_entry (
    id           uuid PRIMARY KEY,
    operation_id uuid NOT NULL,
    kind         text NOT NULL,
    payment_id   uuid NOT NULL REFERENCES payment,
    amount_minor bigint NOT NULL,
    currency     text NOT NULL,
    day          date NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (operation_id, kind),
    FOREIGN KEY (operation_id, kind) REFERENCES posting (operation_id, kind)
);
CREATE INDEX settlement_entry_of_payment ON settlement_entry (payment_id);

CREATE SEQUENCE receipt_number;
CREATE TABLE receipt (
    payment_id    uuid PRIMARY KEY REFERENCES payment,
    number        text NOT NULL UNIQUE DEFAULT 'TLM-' || lpad(nextval('receipt_number')::text, 10, '0'),
    issued_at     timestamptz NOT NULL DEFAULT now(),
    -- One sender at a time; a sender that died is followed after this.
    sending_until timestamptz,
    sent_at       timestamptz
);

-- Messages that a committed transaction promised; deleted once the broker has confirmed them. One row keeps one
-- event id for ever.
CREATE TABLE outbox (
    id            uuid PRIMARY KEY,
    routing_key   text NOT NULL,
    body          bytea NOT NULL,
    traceparent   text,
    -- The process that committed it publishes at once; the sweep takes what is left after this.
    publish_after timestamptz NOT NULL DEFAULT now() + interval '5 seconds',
    attempts      integer NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_due ON outbox (publish_after);

-- The answers given under an Idempotency-Key.
CREATE TABLE idempotency_key (
    caller      text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    payment_id  uuid NOT NULL,
    answer      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);

-- Public halves of the sealing keys. The private halves are files that only the authorize worker can read.
CREATE TABLE sealing_key (
    kid        text PRIMARY KEY,
    jwk        jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Offered for sealing until then; cards sealed before are still opened until the key is destroyed.
    seal_until timestamptz NOT NULL,
    destroy_at timestamptz NOT NULL,
    CHECK (destroy_at > seal_until)
);

-- Sealed cards wait here for at most 15 minutes and leave by DELETE ... RETURNING in the claim. Unlogged: not in the
-- WAL, not in replicas, empty after a crash. Four slices of 15 minutes by expiry, truncated once past.
CREATE TABLE sealed_card (
    id         uuid NOT NULL,
    slice      smallint NOT NULL CHECK (slice BETWEEN 0 AND 3),
    bill_code  text NOT NULL,
    kid        text NOT NULL,
    jwe        text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (id, slice)
) PARTITION BY LIST (slice);
CREATE UNLOGGED TABLE sealed_card_0 PARTITION OF sealed_card FOR VALUES IN (0);
CREATE UNLOGGED TABLE sealed_card_1 PARTITION OF sealed_card FOR VALUES IN (1);
CREATE UNLOGGED TABLE sealed_card_2 PARTITION OF sealed_card FOR VALUES IN (2);
CREATE UNLOGGED TABLE sealed_card_3 PARTITION OF sealed_card FOR VALUES IN (3);

-- These tables churn: rows live for seconds.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE payment SET (fillfactor = 80);
ALTER TABLE operation SET (fillfactor = 80);
