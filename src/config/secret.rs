//! A text that is never shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that is never shown: passwords, tokens, and addresses that hold them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Takes numbers too: an all-digit password in the environment arrives as one.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Tolerant {
            Text(String),
            Number(u64),
            Flag(bool),
        }
        Ok(Self(
            match Tolerant::deserialize(deserializer).map_err(|_| serde::de::Error::custom("expected a text"))? {
                Tolerant::Text(text) => text,
                Tolerant::Number(number) => number.to_string(),
                Tolerant::Flag(flag) => flag.to_string(),
            },
        ))
    }
}
