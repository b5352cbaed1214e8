//! The properties of a message, as a foreign publisher fills them in.

use tolom::{
    broker::read_parcel,
    contracts::mask::{is_traceparent, mask_text},
};

/// A header of a dead letter is cut to 1,000 characters, and marked where it was.
const LONGEST: usize = 1_010;

/// What is taken of them may be logged, kept and sent on: no card's number, nothing but a `traceparent` for one, and a
/// bounded history.
pub fn target(bytes: &[u8]) {
    for dead in [false, true] {
        let Some(parcel) = read_parcel(bytes, b"body".to_vec(), dead) else { return };
        assert_eq!(parcel.body, b"body");
        assert!(parcel.id.len() <= 255);
        assert!(!mask_text(parcel.id.clone()).1.any(), "{}", parcel.id);
        assert!(parcel.traceparent.is_none_or(|text| is_traceparent(text.as_bytes())));
        let history = parcel.history;
        assert!(history.failures.len() <= 16 && history.headers.len() <= 64);
        assert!(dead || history.headers.is_empty());
        for (name, value) in &history.headers {
            assert!(value.chars().count() <= LONGEST, "{}", value.chars().count());
            assert!(!mask_text(name.clone()).1.any() && !mask_text(value.clone()).1.number, "{name}: {value}");
        }
    }
}
