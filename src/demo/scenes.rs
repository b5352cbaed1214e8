//! Which bill is paid with which card, and how that has to end.

use time::{Duration, OffsetDateTime};

use crate::{
    bills_csv,
    clock::bishkek_day,
    payment::{
        PaymentCode, PublicStatus,
        card::{CardInput, DeclineReason},
    },
    simulator::cards::CARDS,
    stage::{AGENCY, Set},
};

const BILLS: &str = include_str!("bills.csv");

/// How a payment has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Paid.
    Paid,
    /// Declined with this reason.
    Declined(DeclineReason),
    /// Not charged, and provably so.
    NotCharged,
}

impl Ending {
    /// Whether a payment ended like this.
    pub(super) fn is(self, status: PublicStatus, reason: Option<&str>) -> bool {
        match self {
            Self::Paid => status == PublicStatus::Paid,
            Self::Declined(wanted) => status == PublicStatus::Declined && reason == Some(wanted.as_str()),
            Self::NotCharged => status == PublicStatus::NotCharged,
        }
    }
}

/// One card and how a payment with it has to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    /// The test card's title.
    pub(super) title: &'static str,
    /// How it ends.
    pub(super) ending: Ending,
    /// Whether nothing is to go wrong, so that its time means something.
    pub(super) plain: bool,
}

/// A number that no bank is asked about.
const MISTYPED: (&str, &str) = ("mistyped number", "4111111111111112");

const fn scene(title: &'static str, ending: Ending) -> Scene {
    Scene { title, ending, plain: false }
}

const fn plain(title: &'static str) -> Scene {
    Scene { title, ending: Ending::Paid, plain: true }
}

/// What is played, one payment a bill, in the order of the bills.
pub(super) const SCENES: &[Scene] = &[
    plain("approved"),
    plain("approved (Mastercard)"),
    plain("approved"),
    plain("approved (Mastercard)"),
    scene("insufficient funds", Ending::Declined(DeclineReason::InsufficientFunds)),
    scene("do not honor", Ending::Declined(DeclineReason::DoNotHonor)),
    scene("expired", Ending::Declined(DeclineReason::ExpiredCard)),
    scene("lost", Ending::Declined(DeclineReason::LostOrStolen)),
    scene("wrong cvc", Ending::Declined(DeclineReason::InvalidCvc)),
    scene(MISTYPED.0, Ending::Declined(DeclineReason::InvalidNumber)),
    scene("slow", Ending::Paid),
    scene("busy", Ending::Paid),
    scene("3-D Secure", Ending::Paid),
    scene("time-out after approval", Ending::Paid),
    scene("reset after approval", Ending::Paid),
    scene("error after approval", Ending::Paid),
    scene("time-out before processing", Ending::NotCharged),
    scene("error after capture", Ending::Paid),
];

impl Scene {
    /// The card as the payer types it.
    pub(super) fn card(self, now: OffsetDateTime) -> CardInput {
        CardInput {
            number: self.number().to_owned(),
            expiry_month: 12,
            // A test card is good for some years from any day.
            expiry_year: u16::try_from(bishkek_day(now).year() + 3).unwrap_or(u16::MAX),
            cvc: "123".to_owned(),
            holder: "AIBEK ASANOV".to_owned(),
        }
    }

    fn number(self) -> &'static str {
        let mastercard = "5555555555554444";
        match self.title {
            title if title == MISTYPED.0 => MISTYPED.1,
            "approved (Mastercard)" => mastercard,
            title => CARDS.iter().find(|card| card.title == title).map_or(MISTYPED.1, |card| card.number),
        }
    }
}

/// The sample bills, good for thirty days from `now`.
pub(super) fn bills_csv(now: OffsetDateTime) -> String {
    BILLS.replace("{in 30 days}", &bishkek_day(now + Duration::days(30)).to_string())
}

/// Issues the sample bills from a file, as an agency does: their codes, in the order of the file.
pub(super) async fn issue_bills(set: &Set) -> anyhow::Result<Vec<PaymentCode>> {
    let csv = bills_csv(set.clock.now());
    bills_csv::import(&set.pool, &set.config, AGENCY, csv.as_bytes()).await?;
    let lines = bills_csv::read(csv.as_bytes(), &set.config).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    Ok(lines.into_iter().map(|line| line.bill.code).collect())
}

/// Where a payer's receipt goes.
pub(super) fn email(bill: &PaymentCode) -> String {
    format!("payer-{bill}@mail.example")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{clock::Clock, config::Config};

    #[test]
    fn every_scene_has_a_bill_and_bills_are_left_to_pay_by_hand() {
        let text = bills_csv(Clock::system().now());
        let lines = bills_csv::read(text.as_bytes(), &Config::defaults()).unwrap();
        assert!(lines.len() >= SCENES.len() + 3);
        let left: HashSet<_> = lines[SCENES.len()..].iter().map(|line| line.bill.service.as_str()).collect();
        assert_eq!(left.len(), 3, "one of each service");
        for line in &lines {
            assert!((12..=14).contains(&line.bill.code.as_str().len()), "{}", line.bill.code);
            assert!([51_000, 130_000, 164_000, 186_500, 414_000].contains(&line.bill.amount.value));
        }
    }

    #[test]
    fn every_scene_has_the_card_that_it_names() {
        for scene in SCENES.iter().filter(|scene| scene.title != MISTYPED.0) {
            assert_ne!(scene.number(), MISTYPED.1, "{}", scene.title);
        }
        assert!(!crate::payment::card::luhn(MISTYPED.1));
    }
}
