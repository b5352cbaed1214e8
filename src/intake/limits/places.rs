//! Places for what is in progress: so many for all. While half of them are free anybody may have them, for many people may
//! stand behind one address; of the other half no address has more than a share, so that nobody alone can take the places of
//! everybody.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Once half of the places are taken, an address that has more than this part of them is given no further one.
const SHARE: usize = 8;

/// Places. Cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Places(Arc<Inner>);

struct Inner {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
pub(in super::super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// So many.
    pub(in super::super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, taken: Mutex::default() }))
    }

    /// A place for this address, if there is one, and half of them are free or the address has fewer than its share.
    pub(in super::super) fn take(&self, address: IpAddr) -> Option<Place> {
        let Inner { most, taken } = &*self.0;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let has = taken.by.get(&address).copied().unwrap_or(0);
        let is_scarce = taken.all >= most / 2;
        if taken.all >= *most || is_scarce && has >= (most / SHARE).max(1) {
            return None;
        }
        taken.by.insert(address, has + 1);
        taken.all += 1;
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        // Who has none is not remembered.
        match taken.by.get_mut(&self.address) {
            Some(has) if *has > 1 => *has -= 1,
            _ => drop(taken.by.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_half_or_its_share_and_all_together_have_no_more_than_there_are() {
        let (places, address) = (Places::new(16), |last: u8| IpAddr::from([192, 0, 2, last]));
        let mut held: Vec<Place> = Vec::new();
        held.extend((0..8).map(|_| places.take(address(0)).unwrap()));
        assert!(places.take(address(0)).is_none(), "half of them");
        for last in 1..=4 {
            held.extend((0..2).map(|_| places.take(address(last)).unwrap()));
            assert!(places.take(address(last)).is_none(), "its share");
        }
        assert!(places.take(address(9)).is_none(), "there is none left");
        held.remove(0);
        held.push(places.take(address(9)).unwrap());
        assert!(places.take(address(0)).is_none());
        held.clear();
        assert!(places.0.taken.lock().unwrap().by.is_empty(), "nobody is remembered");
    }

    #[test]
    fn of_a_few_places_each_address_may_have_one() {
        let places = Places::new(1);
        assert!(places.take(IpAddr::from([192, 0, 2, 1])).is_some());
    }
}
