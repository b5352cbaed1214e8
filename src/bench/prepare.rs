//! What is offered: open bills, and a request with a sealed card for each, all made before the clock starts.

use std::thread::available_parallelism;

use anyhow::Context as _;
use futures::future::try_join_all;

use crate::{
    clock::bishkek_day,
    contracts,
    payer::{Payer, Request, SealingKey},
    payment::PaymentCode,
    stage::{self, AMOUNT, Set},
};

/// A test card that is approved.
const CARD: &str = "4111111111111111";

/// Issues `count` bills, numbered from `first`, and seals a card for each.
pub(super) async fn requests(set: &Set, payer: &Payer, first: usize, count: usize) -> anyhow::Result<Vec<Request>> {
    let codes = stage::issue_bills(&set.pool, &set.config, first..first + count, set.clock.now()).await?;
    let key = payer.keys().await?.into_iter().next().context("there is no sealing key")?;
    let part = codes.len().div_ceil(available_parallelism().map_or(1, usize::from)).max(1);
    // Sealing is arithmetic: on threads of its own, it keeps nobody waiting.
    let parts = codes.chunks(part).map(|codes| {
        let sealer = Sealer { payer: payer.clone(), key: key.clone(), set: set.clone(), codes: codes.to_vec() };
        tokio::task::spawn_blocking(move || sealer.seal())
    });
    Ok(try_join_all(parts).await?.into_iter().flatten().collect())
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
        let card = stage::card(CARD, today);
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
