//! Server-sent events, as the payer's side reads them.

use tolom::payer::sse::{Event, MAX_BYTES, Reader};

/// The events are the same wherever the network cuts the bytes, and none is larger than what is kept at most.
pub fn target(bytes: &[u8]) {
    let whole = Reader::default().take(bytes);
    for size in [1, 7] {
        let mut reader = Reader::default();
        let pieces: Vec<Event> = bytes.chunks(size).flat_map(|piece| reader.take(piece)).collect();
        assert_eq!(pieces, whole);
    }
    for event in &whole {
        assert!(!event.kind.is_empty() && !event.kind.contains(['\r', '\n']));
        assert!(event.data.len() <= MAX_BYTES);
    }
    // Read once more as the standard has it, each comes out as it was.
    let written: String = whole.iter().map(write).collect();
    assert_eq!(Reader::default().take(written.as_bytes()), whole);
}

fn write(event: &Event) -> String {
    let data: String = event.data.split('\n').map(|line| format!("data: {line}\n")).collect();
    format!("event: {}\n{data}\n", event.kind)
}
