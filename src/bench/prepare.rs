//! What is offered: open bills, and a request with a sealed card for each, all made before the clock starts.

use std::thread::available_parallelism;

use anyhow::Context as _;
use futures::future::try_join_all;
use time::Duration;

use crate::{
    clock::bishkek_day,
    config::Config,
    contracts,
    payer::{Payer, Request, SealingKey},
    payment::{Currency, Money, PaymentCode, card::CardInput},
    stage::{AGENCY, Set},
    store::bills::{self, BillTerms},
};

const AMOUNT: Money = Money::new(51_000, Currency::KGS);
/// A test card that is approved.
const CARD: &str = "4111111111111111";

/// Issues `count` bills, numbered from `first`, and seals a card for each.
pub(super) async fn requests(set: &Set, payer: &Payer, first: usize, count: usize) -> anyhow::Result<Vec<Request>> {
    let now = set.clock.now();
    let terms = (first..first + count).map(|number| bill(&set.config, number, now + Duration::days(30)));
    let terms: Vec<BillTerms> = terms.collect::<anyhow::Result<_>>()?;
    bills::import(&set.pool, AGENCY, &terms, now).await?;
    let key = payer.keys().await?.into_iter().next().context("there is no sealing key")?;
    let codes: Vec<PaymentCode> = terms.into_iter().map(|terms| terms.code).collect();
    let part = codes.len().div_ceil(available_parallelism().map_or(1, usize::from)).max(1);
    // Sealing is arithmetic: on threads of its own, it keeps nobody waiting.
    let parts = codes.chunks(part).map(|codes| {
        let sealer = Sealer { payer: payer.clone(), key: key.clone(), set: set.clone(), codes: codes.to_vec() };
        tokio::task::spawn_blocking(move || sealer.seal())
    });
    Ok(try_join_all(parts).await?.into_iter().flatten().collect())
}

fn bill(config: &Config, number: usize, valid_until: time::OffsetDateTime) -> anyhow::Result<BillTerms> {
    let service = config.services.first().context("no service is configured")?;
    Ok(BillTerms {
        code: format!("{}{number:010}", service.prefix).parse()?,
        service: service.service.clone(),
        applicant: "Асанов Айбек Маратович".to_owned(),
        amount: AMOUNT,
        valid_until,
    })
}

/// A part of the sealing.
struct Sealer {
    payer: Payer,
    key: SealingKey,
    set: Set,
    codes: Vec<PaymentCode>,
}

impl Sealer {
    fn seal(self) -> Vec<Request> {
        let now = self.set.clock.now();
        let today = bishkek_day(now);
        let card = CardInput {
            number: CARD.to_owned(),
            expiry_month: 12,
            expiry_year: u16::try_from(today.year() + 3).unwrap_or(u16::MAX),
            cvc: "123".to_owned(),
            holder: "AIBEK ASANOV".to_owned(),
        };
        let request = |bill: PaymentCode| Request {
            amount: AMOUNT,
            card: self.payer.seal(&self.key, &bill, &card, now),
            payer: contracts::Payer { email: format!("payer-{bill}@mail.example"), phone: "+996555123456".to_owned() },
            locale: "ky".to_owned(),
            terms: self.set.config.terms_in_force(today).to_owned(),
            bill,
        };
        self.codes.into_iter().map(request).collect()
    }
}
