//! Cards of a batch: opened, checked as far as it goes without a bank, and held against what was declined lately.

use std::{collections::HashMap, sync::Arc, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    clock,
    payment::{
        card::{Card, DeclineReason, MaskedCard},
        limits::By,
    },
    sealing::{FingerprintKey, KeyDir, SealError},
    store::{
        StoreError,
        limits::{self, KeyedHash},
        operations::SealedCard,
    },
    worker::Context,
};

/// How long a batch waits for its cards' past.
const WITHIN: Duration = Duration::from_secs(1);

/// What opens cards and knows them again.
pub(super) struct Cards {
    pub(super) context: Context,
    pub(super) keys: Arc<KeyDir>,
    pub(super) fingerprints: Arc<FingerprintKey>,
}

/// What came of opening a sealed card.
pub(super) enum Opened {
    /// To be sent.
    Card(Card),
    /// Declined here: nothing is sent.
    Refused(Option<MaskedCard>, DeclineReason),
    /// It cannot be opened here, now.
    NoKeys(String),
}

impl Cards {
    /// Opens a sealed card and checks what can be known without a bank.
    pub(super) fn open(&self, sealed: &SealedCard) -> Opened {
        let now = self.context.clock.now();
        let Ok(bill) = sealed.bill.parse() else { return Opened::Refused(None, DeclineReason::UnreadableCard) };
        let input = match self.keys.open_card(&sealed.jwe, &bill, now) {
            Ok(Ok(input)) => input,
            // The payer's card is good; this worker lacks the key. Another one, or a later try, may have it.
            Ok(Err(SealError::UnknownKey)) => return Opened::NoKeys("the sealing key is not here".to_owned()),
            Ok(Err(SealError::Expired)) => return Opened::Refused(None, DeclineReason::CardTimedOut),
            Ok(Err(_)) => return Opened::Refused(None, DeclineReason::UnreadableCard),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the sealing keys cannot be read");
                return Opened::NoKeys("the sealing keys cannot be read".to_owned());
            }
        };
        let today = clock::bishkek_day(now);
        let month = (u16::try_from(today.year()).unwrap_or(u16::MAX), u8::from(today.month()));
        match input.check(&self.context.config.card, month) {
            Ok(card) => Opened::Card(card),
            Err(reason) => Opened::Refused(input.masked(), reason),
        }
    }

    /// Declines those of a batch whose card was declined too often lately, over all bills, before anything is sent.
    ///
    /// The claims run out meanwhile, and a limit fails no payment that was accepted: where the database does not answer
    /// at once, the bank decides alone.
    pub(super) async fn limit(&self, opened: &mut [(Uuid, Opened)]) {
        let uses: Vec<(Uuid, KeyedHash)> = opened
            .iter()
            .filter_map(|(payment, opened)| match opened {
                Opened::Card(card) => Some((*payment, self.fingerprints.of(card))),
                Opened::Refused(..) | Opened::NoKeys(_) => None,
            })
            .collect();
        if uses.is_empty() {
            return;
        }
        let (sessions, limits) = (&self.context.sessions, &self.context.config.limits);
        let now = self.context.clock.now();
        let counted = tokio::time::timeout(WITHIN, limits::use_cards(sessions, &uses, limits, now)).await;
        let failures = match counted.unwrap_or(Err(StoreError::TimedOut)) {
            Ok(failures) => failures,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cards cannot be held against their limit");
                return;
            }
        };
        let shut = |card: &KeyedHash| {
            let failures = failures.get(card)?;
            limits.card.shut_until(failures.count, failures.last?, now)
        };
        let shut: HashMap<Uuid, OffsetDateTime> =
            uses.iter().filter_map(|(payment, card)| Some((*payment, shut(card)?))).collect();
        for (payment, opened) in opened {
            if let Opened::Card(card) = opened
                && let Some(until) = shut.get(payment)
            {
                tracing::info!(payment.id = %payment, %until, "the card was declined too often lately");
                count_limited(1);
                *opened = Opened::Refused(Some(card.masked()), DeclineReason::TooManyAttempts);
            }
        }
    }
}

/// Counts cards that were declined by the limit.
pub(super) fn count_limited(cards: u64) {
    metrics::counter!("tolom_limited_total", "by" => By::Card.as_str(), "what" => "payment").increment(cards);
}
