//! Unknown payment codes by address: who guesses waits, longer with each further code.
//!
//! In memory, each intake for itself: an unknown code must cost less than the query that told it. What an address learns
//! while it is shut is nothing: the answer is held back even if the query had begun before.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
};

use time::OffsetDateTime;

use super::MAX_ADDRESSES;
use crate::payment::limits::Velocity;

/// A window of one address.
#[derive(Debug, Clone, Copy)]
struct Tried {
    since: OffsetDateTime,
    unknown: u32,
    last: OffsetDateTime,
}

/// What addresses have tried.
pub(in super::super) struct Codes {
    rule: Velocity,
    tried: Mutex<HashMap<IpAddr, Tried>>,
    most: usize,
}

impl Codes {
    /// Nothing has been tried yet.
    pub(in super::super) fn new(rule: Velocity) -> Self {
        Self { rule, tried: Mutex::default(), most: MAX_ADDRESSES }
    }

    /// Until when this address is answered nothing.
    pub(in super::super) fn shut_until(&self, address: IpAddr, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let shut = |address| tried.get(&address).and_then(|seen: &Tried| self.shut(seen, now));
        shut(address).or_else(|| if tried.len() > self.most { shut(EVERYBODY_ELSE) } else { None })
    }

    /// Counts an unknown code of this address. If it is shut already (many were asked at once) this one counts for
    /// nothing and must not be answered: until when.
    pub(in super::super) fn unknown(&self, address: IpAddr, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.len() >= self.most && !tried.contains_key(&address) {
            self.forget(&mut tried, now);
        }
        // A flood from more addresses than can be told apart counts as one.
        let full = tried.len() >= self.most && !tried.contains_key(&address);
        let address = if full { EVERYBODY_ELSE } else { address };
        let fresh = Tried { since: now, unknown: 0, last: now };
        let seen = tried.entry(address).or_insert(fresh);
        if let Some(until) = self.shut(seen, now) {
            return Some(until);
        }
        if now - seen.since >= self.rule.window() {
            *seen = fresh;
        }
        (seen.unknown, seen.last) = (seen.unknown.saturating_add(1), now);
        None
    }

    fn shut(&self, seen: &Tried, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.rule.shut_until(seen.unknown, seen.last, now)
    }

    /// Forgets those whose window is past.
    fn forget(&self, tried: &mut HashMap<IpAddr, Tried>, now: OffsetDateTime) {
        tried.retain(|_, seen| now - seen.since < self.rule.window() || self.shut(seen, now).is_some());
    }
}

/// No host has this address (RFC 1122, 3.2.1.3).
const EVERYBODY_ELSE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::payment::limits::wait_s;

    const START: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn codes() -> Codes {
        Codes::new(Velocity { free: 3, window_s: 3_600, delays_s: vec![5, 10, 900] })
    }

    #[test]
    fn who_goes_on_guessing_waits_longer_each_time() {
        let (codes, mut now, mut waits) = (codes(), START, Vec::new());
        for _ in 0..6 {
            assert_eq!(codes.unknown(ADDRESS, now), None);
            let wait = codes.shut_until(ADDRESS, now).map_or(0, |until| wait_s(until, now));
            waits.push(wait);
            now += Duration::seconds(i64::from(wait));
        }
        assert_eq!(waits, [0, 0, 5, 10, 900, 900]);
    }

    #[test]
    fn while_shut_nothing_is_answered_nothing_counted_and_others_go_on() {
        let codes = codes();
        (0..3).for_each(|_| assert_eq!(codes.unknown(ADDRESS, START), None));
        for _ in 0..100 {
            assert_eq!(codes.unknown(ADDRESS, START), Some(START + Duration::seconds(5)));
        }
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(codes.shut_until(other, START), None);
        assert_eq!(codes.unknown(other, START), None);
    }

    #[test]
    fn after_the_window_it_begins_anew() {
        let codes = codes();
        (0..3).for_each(|_| assert_eq!(codes.unknown(ADDRESS, START), None));
        let later = START + Duration::hours(1);
        (0..2).for_each(|_| assert_eq!(codes.unknown(ADDRESS, later), None));
        assert_eq!(codes.shut_until(ADDRESS, later), None);
    }

    #[test]
    fn more_addresses_than_can_be_told_apart_count_as_one_and_those_that_are_past_make_room() {
        let codes = Codes { most: 10, ..codes() };
        let address = |number: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        (0..20).for_each(|number| assert_eq!(codes.unknown(address(number), START).is_some(), number >= 13));
        assert!(codes.shut_until(address(100), START).is_some());
        assert!(codes.shut_until(address(0), START).is_some(), "nobody is told apart any more");
        assert_eq!(codes.tried.lock().unwrap().len(), 11);
        assert_eq!(codes.unknown(address(100), START + Duration::hours(2)), None);
        assert_eq!(codes.tried.lock().unwrap().len(), 1);
    }
}
