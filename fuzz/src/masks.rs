//! Bodies and texts that are kept as dead letters.

use tolom::contracts::mask::{mask, mask_text};

/// Masking leaves lengths alone and what is masked stays so: a second look finds no number any more.
pub fn target(bytes: &[u8]) {
    let mut masked = bytes.to_vec();
    let found = mask(&mut masked);
    assert_eq!(masked.len(), bytes.len());
    assert_eq!(masked != bytes, found.any(), "told as it is");
    assert!(masked.iter().zip(bytes).all(|(after, before)| after == before || *after == b'*'));
    let again = mask(&mut masked.clone());
    assert!(!again.number, "{}", masked.escape_ascii());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (masked, found) = mask_text(text.to_owned());
        assert!(found.any() || masked == text);
    }
}
