//! What is offered: open bills, and a request with a sealed card for each, all made before the clock starts.

use std::{net::Ipv6Addr, thread::available_parallelism};

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::try_join_all;
use hyper::header::HeaderValue;
use uuid::Uuid;

use super::line::Prepared;
use crate::{
    clock::bishkek_day,
    contracts,
    payer::{Payer, Request, SealingKey},
    payment::{PaymentCode, card::luhn},
    simulator,
    stage::{self, AMOUNT, Set},
};

/// The first digits of cards that are approved: no test card has them.
const ISSUER: &str = "490001";
/// Test cards whose authorization is approved and whose answer is late, an error, cut off, or never comes.
const FAULTS: [&str; 4] = ["4000000000050015", "4000000000050049", "4000000000050064", "4000000000050031"];

/// Which cards are used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cards {
    /// The share of those whose answer goes wrong.
    pub(super) fault_rate: f64,
    pub(super) seed: u64,
}

impl Cards {
    /// The card of the payment of this number: the same one under the same seed. Payers have cards of their own.
    fn number(self, payment: usize) -> String {
        let place = payment as u64;
        if simulator::chance(self.seed, 2 * place) < self.fault_rate {
            return FAULTS[(simulator::chance(self.seed, 2 * place + 1) * FAULTS.len() as f64) as usize].to_owned();
        }
        let numbers = (0..10).map(|check| format!("{ISSUER}{payment:09}{check}"));
        // One of ten check digits is right.
        numbers.into_iter().find(|number| luhn(number)).unwrap_or_default()
    }
}

/// Issues `count` bills, numbered from `first`, and prepares a payment of each.
pub(super) async fn requests(set: &Set, first: usize, count: usize, cards: Cards) -> anyhow::Result<Vec<Prepared>> {
    let codes = stage::issue_bills(&set.pool, &set.config, first..first + count, set.clock.now()).await?;
    let codes: Vec<(usize, PaymentCode)> = (first..).zip(codes).collect();
    let payer = Payer::new(&set.addresses.site)?;
    let key = payer.keys().await?.into_iter().next().context("there is no sealing key")?;
    let part = codes.len().div_ceil(available_parallelism().map_or(1, usize::from)).max(1);
    // Sealing is arithmetic: on threads of its own, it keeps nobody waiting.
    let parts = codes.chunks(part).map(|codes| {
        let sealer = Sealer { payer: payer.clone(), key: key.clone(), set: set.clone(), cards };
        let codes = codes.to_vec();
        tokio::task::spawn_blocking(move || {
            codes.into_iter().map(|(number, bill)| sealer.prepare(number, bill)).collect()
        })
    });
    let parts: Vec<anyhow::Result<Vec<Prepared>>> = try_join_all(parts).await?;
    Ok(parts.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// A part of the sealing.
struct Sealer {
    payer: Payer,
    key: SealingKey,
    set: Set,
    cards: Cards,
}

impl Sealer {
    fn prepare(&self, number: usize, bill: PaymentCode) -> anyhow::Result<Prepared> {
        let now = self.set.clock.now();
        let today = bishkek_day(now);
        let card = stage::card(&self.cards.number(number), today);
        let request = Request {
            amount: AMOUNT,
            card: self.payer.seal(&self.key, &bill, &card, now),
            payer: contracts::Payer { email: format!("payer-{bill}@mail.example"), phone: "+996555123456".to_owned() },
            locale: "ky".to_owned(),
            terms: self.set.config.terms_in_force(today).to_owned(),
            bill,
        };
        Ok(Prepared {
            key: HeaderValue::from_str(&Uuid::new_v4().to_string())?,
            address: HeaderValue::from_str(&address(number).to_string())?,
            cookie: HeaderValue::from_str(&format!("tolom_device={}", Uuid::new_v4().simple()))?,
            body: Bytes::from(serde_json::to_vec(&request)?),
        })
    }
}

/// Payers sit in networks of their own: those of a documentation prefix (RFC 3849), a /64 each.
fn address(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, (number >> 16) as u16, number as u16, 0, 0, 0, 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::simulator::cards::CARDS;

    #[test]
    fn every_payment_has_a_good_card_of_its_own_and_so_many_as_asked_for_go_wrong() {
        let cards = Cards { fault_rate: 0.25, seed: 7 };
        let numbers: Vec<String> = (0..4_000).map(|payment| cards.number(payment)).collect();
        assert!(numbers.iter().all(|number| number.len() == 16 && luhn(number)));
        assert!(FAULTS.iter().all(|fault| CARDS.iter().any(|card| card.number == *fault)));
        let faults = numbers.iter().filter(|number| FAULTS.contains(&number.as_str())).count();
        assert!((900..1_100).contains(&faults), "{faults}");
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 4_000 - faults + FAULTS.len());
        assert!(numbers.iter().all(|number| FAULTS.contains(&number.as_str()) || number.starts_with(ISSUER)));
    }
}
