//! Identifiers: from the system's randomness, or, on a thread that asks for it, from a seed.

use std::cell::RefCell;

use time::OffsetDateTime;
use uuid::{Builder, Uuid};

use super::{Clock, Dice, millis};

thread_local! {
    static FOLLOWED: RefCell<Option<Followed>> = const { RefCell::new(None) };
}

/// What the identifiers of a thread follow.
struct Followed {
    clock: Clock,
    dice: Dice,
    /// Identifiers made so far.
    made: u32,
}

/// From now on, identifiers made on this thread follow `clock` and `seed` instead of the system, so that a run can be
/// repeated to the letter. For simulations: such identifiers can be guessed. They are as unique as the pair of seed and
/// clock is, and those of version 7 stand in the order in which they were made.
pub fn follow(clock: Clock, seed: u64) {
    FOLLOWED.set(Some(Followed { clock, dice: Dice::new(seed), made: 0 }));
}

/// A new identifier: UUID version 7 (RFC 9562), so that rows made together stand together on disk.
pub fn new_id() -> Uuid {
    followed(|followed| {
        let at = u64::try_from(millis(followed.clock.now())).unwrap_or(0);
        let mut bytes = [0; 10];
        // The counter before the random bits (RFC 9562, 6.2, method 1), behind those that version and variant take.
        bytes[3..7].copy_from_slice(&followed.made.to_be_bytes());
        bytes[7..].copy_from_slice(&followed.next().to_be_bytes()[..3]);
        Builder::from_unix_timestamp_millis(at, &bytes).into_uuid()
    })
    .unwrap_or_else(Uuid::now_v7)
}

/// A new identifier that nobody can guess from another: UUID version 7 (RFC 9562) whose other 74 bits are the system's
/// randomness, without a counter. Knowing a payment's id is leave to read it. And in the order of time: among millions
/// of payments the new ones stand together in every index, which random ones would not.
pub fn new_secret_id() -> Uuid {
    let secret = |at: OffsetDateTime, random: [u8; 16]| {
        let at = u64::try_from(millis(at)).unwrap_or(0);
        // Between these bytes stand the version and the variant of a random UUID.
        let [a, b, c, d, e, f, _, _, _, _, g, h, i, j, _, _] = random;
        Builder::from_unix_timestamp_millis(at, &[a, b, c, d, e, f, g, h, i, j]).into_uuid()
    };
    followed(|followed| {
        let (high, low) = (followed.next(), followed.next());
        secret(followed.clock.now(), (u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    })
    .unwrap_or_else(|| secret(Clock::system().now(), Uuid::new_v4().into_bytes()))
}

fn followed(make: impl FnOnce(&mut Followed) -> Uuid) -> Option<Uuid> {
    FOLLOWED.with_borrow_mut(|followed| followed.as_mut().map(make))
}

impl Followed {
    fn next(&mut self) -> u64 {
        self.made += 1;
        self.dice.next()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn followed_identifiers_repeat_with_their_seed_and_stand_in_order() {
        let run = |seed| {
            let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH);
            follow(clock.clone(), seed);
            let ids: Vec<Uuid> = (0..5_000)
                .map(|index| {
                    if index % 1_000 == 0 {
                        clock.advance(Duration::from_millis(1));
                    }
                    new_id()
                })
                .collect();
            (ids, new_secret_id())
        };
        let (ids, secret) = run(7);
        assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(ids.iter().chain([&secret]).all(|id| id.get_version_num() == 7));
        assert_eq!(run(7), (ids.clone(), secret));
        assert_ne!(run(8).0, ids);
    }

    #[test]
    fn a_secret_identifier_tells_its_time_and_nothing_of_the_next_one() {
        let secrets: Vec<u128> = (0..1_000).map(|_| new_secret_id().as_u128()).collect();
        for pair in secrets.windows(2) {
            assert!(pair[1] >> 80 >= pair[0] >> 80, "in the order of time");
            // Of 74 random bits half differ: these limits are five deviations away.
            let differ = ((pair[0] ^ pair[1]) & ((1 << 80) - 1)).count_ones();
            assert!((16..=59).contains(&differ), "{differ}");
        }
    }
}
