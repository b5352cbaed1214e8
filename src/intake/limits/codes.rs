//! Unknown payment codes by who asks: who guesses waits, longer with each further code.
//!
//! In memory, each intake for itself: an unknown code must cost less than the query that told it. What somebody learns
//! while they are shut is nothing: the answer is held back even if the query had begun before.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use time::OffsetDateTime;

use super::MAX_ADDRESSES;
use crate::payment::limits::{By, Velocity};

/// Who asks about a code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super) enum Asker {
    /// Somebody at this address.
    Address(IpAddr),
    /// A client with a token, by its id.
    Client(String),
}

impl Asker {
    /// What its guesses are counted by.
    pub(in super::super) const fn by(&self) -> By {
        match self {
            Self::Address(_) => By::Address,
            Self::Client(_) => By::Client,
        }
    }
}

impl From<IpAddr> for Asker {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

/// A window of one asker.
#[derive(Debug, Clone, Copy)]
struct Tried {
    since: OffsetDateTime,
    unknown: u32,
    last: OffsetDateTime,
}

/// What they have tried.
pub(in super::super) struct Codes {
    of_address: Velocity,
    of_client: Velocity,
    tried: Mutex<HashMap<Asker, Tried>>,
    most: usize,
}

impl Codes {
    /// Nothing has been tried yet.
    pub(in super::super) fn new(of_address: Velocity, of_client: Velocity) -> Self {
        Self { of_address, of_client, tried: Mutex::default(), most: MAX_ADDRESSES }
    }

    /// Until when this one is answered nothing.
    pub(in super::super) fn shut_until(&self, asker: &Asker, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.get(asker).and_then(|seen| self.shut(asker, seen, now))
    }

    /// Counts an unknown code of this one. Who is shut already (many were asked at once) must not be answered, and this
    /// one counts for nothing: until when.
    pub(in super::super) fn unknown(&self, asker: Asker, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.len() >= self.most && !tried.contains_key(&asker) {
            self.make_room(&mut tried, now);
        }
        let window = self.rule(&asker).window();
        let fresh = Tried { since: now, unknown: 0, last: now };
        let mut seen = tried.get(&asker).copied().unwrap_or(fresh);
        if let Some(until) = self.shut(&asker, &seen, now) {
            return Some(until);
        }
        if now - seen.since >= window {
            seen = fresh;
        }
        tried.insert(asker, Tried { unknown: seen.unknown.saturating_add(1), last: now, ..seen });
        None
    }

    const fn rule(&self, asker: &Asker) -> &Velocity {
        match asker {
            Asker::Address(_) => &self.of_address,
            Asker::Client(_) => &self.of_client,
        }
    }

    fn shut(&self, asker: &Asker, seen: &Tried, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.rule(asker).shut_until(seen.unknown, seen.last, now)
    }

    /// Forgets those whose window is past, and, until a tenth is free, those who have guessed least, of them who did so
    /// longest ago. They may begin anew, which is worth little to a flood that has so many addresses; to hold it against
    /// everybody would let it close the site. Room for many is made at once, so that few have to wait for it.
    fn make_room(&self, tried: &mut HashMap<Asker, Tried>, now: OffsetDateTime) {
        tried.retain(|asker, seen| {
            now - seen.since < self.rule(asker).window() || self.shut(asker, seen, now).is_some()
        });
        let Some(last) = tried.len().checked_sub(self.most - self.most / 10 + 1) else { return };
        let mut ranked: Vec<_> = tried.iter().map(|(asker, seen)| (seen.unknown, seen.last, asker.clone())).collect();
        ranked.select_nth_unstable_by_key(last, |(unknown, last, _)| (*unknown, *last));
        for (.., asker) in &ranked[..=last] {
            tried.remove(asker);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::payment::limits::wait_s;

    const START: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);

    fn codes() -> Codes {
        let of_client = Velocity { free: 5, window_s: 3_600, delays_s: vec![60] };
        Codes::new(Velocity { free: 3, window_s: 3_600, delays_s: vec![5, 10, 900] }, of_client)
    }

    fn guesser() -> Asker {
        Asker::Address(IpAddr::from([192, 0, 2, 1]))
    }

    #[test]
    fn who_goes_on_guessing_waits_longer_each_time() {
        let (codes, mut now, mut waits) = (codes(), START, Vec::new());
        for _ in 0..6 {
            assert_eq!(codes.unknown(guesser(), now), None);
            let wait = codes.shut_until(&guesser(), now).map_or(0, |until| wait_s(until, now));
            waits.push(wait);
            now += Duration::seconds(i64::from(wait));
        }
        assert_eq!(waits, [0, 0, 5, 10, 900, 900]);
    }

    #[test]
    fn while_shut_nothing_is_answered_nothing_counted_and_others_go_on() {
        let codes = codes();
        (0..3).for_each(|_| assert_eq!(codes.unknown(guesser(), START), None));
        for _ in 0..100 {
            assert_eq!(codes.unknown(guesser(), START), Some(START + Duration::seconds(5)));
        }
        let other = Asker::Address(IpAddr::from([192, 0, 2, 2]));
        assert_eq!(codes.shut_until(&other, START), None);
        assert_eq!(codes.unknown(other, START), None);
    }

    #[test]
    fn after_the_window_it_begins_anew() {
        let codes = codes();
        (0..3).for_each(|_| assert_eq!(codes.unknown(guesser(), START), None));
        let later = START + Duration::hours(1);
        (0..2).for_each(|_| assert_eq!(codes.unknown(guesser(), later), None));
        assert_eq!(codes.shut_until(&guesser(), later), None);
    }

    #[test]
    fn a_flood_of_addresses_shuts_nobody_else_and_frees_nobody_who_guesses() {
        let codes = Codes { most: 10, ..codes() };
        let address = |number: u32| Asker::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        (0..3).for_each(|_| assert_eq!(codes.unknown(guesser(), START), None));
        for number in 0..100 {
            let now = START + Duration::milliseconds(i64::from(number));
            assert_eq!(codes.unknown(address(number), now), None);
            assert!(codes.tried.lock().unwrap().len() <= 10);
            assert_eq!(codes.shut_until(&address(1_000), now), None, "who never guessed");
            assert!(codes.shut_until(&guesser(), now).is_some());
        }
        assert!(codes.tried.lock().unwrap().contains_key(&address(99)), "the newest is known");
        assert_eq!(codes.unknown(address(100), START + Duration::hours(2)), None);
        assert_eq!(codes.tried.lock().unwrap().len(), 1, "those whose window is past went first");
    }

    #[test]
    fn a_client_is_counted_by_a_rule_of_its_own() {
        let (codes, client) = (codes(), || Asker::Client("192.0.2.1".to_owned()));
        (0..5).for_each(|_| assert_eq!(codes.unknown(client(), START), None));
        assert_eq!(codes.unknown(client(), START), Some(START + Duration::seconds(60)));
        assert_eq!(codes.shut_until(&guesser(), START), None);
    }
}
