//! What happened in a run, for people, and in a number that tells two runs apart.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use time::OffsetDateTime;
use uuid::Uuid;

pub(super) struct Trace {
    start: OffsetDateTime,
    lines: Vec<String>,
    /// Payments and operations by short names, in the order of their appearance.
    names: BTreeMap<Uuid, String>,
    /// Printed as it happens.
    live: bool,
}

impl Trace {
    pub(super) fn new(start: OffsetDateTime, live: bool) -> Self {
        Self { start, lines: Vec::new(), names: BTreeMap::new(), live }
    }

    pub(super) fn say(&mut self, now: OffsetDateTime, what: &str) {
        let line = format!("{:>12.3}  {what}", (now - self.start).as_seconds_f64());
        if self.live {
            println!("{line}");
        }
        self.lines.push(line);
    }

    /// Names a payment.
    pub(super) fn call(&mut self, id: Uuid, name: String) {
        self.names.insert(id, name);
    }

    /// The short name of an id, given now if it has none.
    pub(super) fn name(&mut self, id: Uuid) -> String {
        let next = self.names.len() + 1;
        self.names.entry(id).or_insert_with(|| format!("op{next}")).clone()
    }

    /// The same for a reference, which is an operation's id.
    pub(super) fn reference(&mut self, reference: &str) -> String {
        reference.parse().map_or_else(|_| reference.to_owned(), |id| self.name(id))
    }

    /// The same for everything in a text that is an id.
    pub(super) fn names_in(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (id, name)| {
            text.replace(&id.to_string(), &format!("{name} ({id})"))
                .replace(&id.simple().to_string(), &format!("{name} ({})", id.simple()))
        })
    }

    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }
}
