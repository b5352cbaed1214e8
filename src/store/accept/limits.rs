//! Whether a member of a batch has to wait. Only a payment that would be new is asked: one that was accepted before is
//! replayed whatever the limits say now.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{NewPayment, Refusal, batch::Batch};
use crate::{
    config,
    payment::limits::{By, wait_s},
    store::{
        StoreError,
        limits::{Counts, Failures, KeyedHash, Origin, count},
    },
};

impl Batch<'_> {
    /// Refuses those from an address that guesses codes, before anything is told of their bill.
    pub(super) fn refuse_guessers(&mut self, now: OffsetDateTime) {
        for index in self.undecided() {
            let until = self.members[index].origin.as_ref().and_then(|origin| origin.shut_until);
            if let Some(until) = until.filter(|until| *until > now) {
                self.refuse(index, Refusal::TooManyAttempts { by: By::Address, wait_s: wait_s(until, now) });
            }
        }
    }

    /// Refuses those whose bill, device or address has failed too often. One statement for the whole batch.
    pub(super) async fn check_limits(
        &mut self,
        db: &mut PgConnection,
        limits: &config::Limits,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let undecided = self.undecided();
        if undecided.is_empty() {
            return Ok(());
        }
        let members = self.members;
        let each = || undecided.iter().map(|index| members[*index]);
        let bills: BTreeSet<&str> = each().map(|member| member.bill.as_str()).collect();
        let origins = || each().filter_map(|member| member.origin.as_ref());
        let addresses: BTreeSet<KeyedHash> = origins().map(|origin| origin.address).collect();
        let devices: BTreeSet<KeyedHash> = origins().filter_map(|origin| origin.device).collect();
        let (bills, addresses, devices) = (Vec::from_iter(bills), Vec::from_iter(addresses), Vec::from_iter(devices));
        let counts = count(db, &bills, &addresses, &devices, limits, now).await?;
        for index in undecided {
            if let Some((by, until)) = longest_wait(members[index], &counts, limits, now) {
                self.refuse(index, Refusal::TooManyAttempts { by, wait_s: wait_s(until, now) });
            }
        }
        Ok(())
    }
}

/// Of all that a payment has to wait for, what lasts longest.
fn longest_wait(
    member: &NewPayment,
    counts: &Counts<'_>,
    limits: &config::Limits,
    now: OffsetDateTime,
) -> Option<(By, OffsetDateTime)> {
    let failed = |rule: &crate::payment::limits::Velocity, failures: Option<&Failures>| {
        failures.and_then(|failures| rule.shut_until(failures.count, failures.last?, now))
    };
    let Origin { address, device, .. } = match &member.origin {
        Some(origin) => origin,
        None => return failed(&limits.bill, counts.bills.get(member.bill.as_str())).map(|until| (By::Bill, until)),
    };
    let device = device.as_ref().and_then(|device| counts.devices.get(device));
    let many_bills = device.and_then(|seen| {
        let over = seen.bills.checked_sub(limits.device_bills)?;
        limits.device.shut_until(limits.device.free.saturating_add(over), seen.latest?, now)
    });
    [
        (By::Bill, failed(&limits.bill, counts.bills.get(member.bill.as_str()))),
        (By::Device, failed(&limits.device, device).max(many_bills)),
        (By::Address, failed(&limits.address, counts.addresses.get(address))),
    ]
    .into_iter()
    .filter_map(|(by, until)| Some((by, until?)))
    .max_by_key(|(_, until)| *until)
}
