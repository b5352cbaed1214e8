-- A foreign message is answered once, like a request over HTTP: under its source and id stands the payment that it made,
-- or why it was refused, so that a repetition is never accepted after its payer was told that it was not.
ALTER TABLE idempotency_key ADD COLUMN refusal text;
