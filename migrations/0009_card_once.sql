-- A sealed card is named by its text, whichever way it came, and one name is in one payment only: what was authorized once
-- cannot be sent again.
DROP INDEX payment_of_stored_card;
CREATE UNIQUE INDEX payment_of_card ON payment (card_id);
