//! Reads server-sent events (WHATWG HTML, section 9.2.6) as their bytes come in.

/// The longest line, and the longest data of one event. Beyond it, what follows is dropped.
pub const MAX_BYTES: usize = 256 * 1024;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Its type; `message` if it has none.
    pub kind: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// Puts events together from pieces of any length.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    after_carriage_return: bool,
    kind: String,
    data: String,
    has_data: bool,
}

impl Reader {
    /// Takes the next bytes; returns the events that are complete with them.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            let second_half = std::mem::take(&mut self.after_carriage_return) && *byte == b'\n';
            match byte {
                b'\n' if second_half => {}
                b'\r' | b'\n' => {
                    self.after_carriage_return = *byte == b'\r';
                    events.extend(self.end_line());
                }
                byte if self.line.len() < MAX_BYTES => self.line.push(*byte),
                _ => {}
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            let data = std::mem::take(&mut self.data);
            let kind = if kind.is_empty() { "message".to_owned() } else { kind };
            return std::mem::take(&mut self.has_data).then_some(Event { kind, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" if self.data.len() + value.len() < MAX_BYTES => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments (an empty field name), ids and reconnection times mean nothing here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(kind: &str, data: &str) -> Event {
        Event { kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_read_as_the_standard_has_them() {
        let text = ": heartbeat\n\nevent: status\ndata: {\"a\":1}\n\nid: 7\r\ndata:x\r\ndata:  y\r\n\r\nretry: 3\n\ndata: half";
        let expected = [event("status", "{\"a\":1}"), event("message", "x\n y")];
        assert_eq!(Reader::default().take(text.as_bytes()), expected);
    }

    #[test]
    fn what_is_too_long_is_cut_and_the_next_event_is_whole() {
        let text = format!("data: {}\n\ndata: b\n\n", "a".repeat(2 * MAX_BYTES));
        let events = Reader::default().take(text.as_bytes());
        assert_eq!(events.last(), Some(&event("message", "b")));
        assert!(events.iter().all(|event| event.data.len() <= MAX_BYTES));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(
            text in "(data|event|: ?|[a-z]{1,3}|\r|\n|\r\n|\n\n){0,30}",
            cut in 0_usize..80,
        ) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let mut reader = Reader::default();
            let mut events = reader.take(&bytes[..cut]);
            events.extend(reader.take(&bytes[cut..]));
            prop_assert_eq!(events, Reader::default().take(bytes));
        }
    }
}
