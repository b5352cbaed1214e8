//! Bills: what is owed for a state service, named by a payment code.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The digits a payer types: 6 to 20 of them, the first two telling the service (a configured list).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PaymentCode(String);

/// Why a text is no payment code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a payment code has 6 to 20 digits")]
pub struct NotAPaymentCode;

impl PaymentCode {
    /// The code's digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PaymentCode {
    type Err = NotAPaymentCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (6..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| Self(text.to_owned())).ok_or(NotAPaymentCode)
    }
}

impl fmt::Display for PaymentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PaymentCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for PaymentCode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PaymentCode".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[0-9]{6,20}$"})
    }
}

/// Where a bill stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BillState)]
pub enum BillStatus {
    /// May be paid until `valid_until`.
    Open,
    /// Paid, by a payment of ours or by another channel.
    Paid,
    /// Withdrawn by its agency.
    Cancelled,
    /// Its time has passed.
    Expired,
}

impl BillStatus {
    /// The word used in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl FromStr for BillStatus {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Open, Self::Paid, Self::Cancelled, Self::Expired]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// A word from the database or a message that this build does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word `{0}`")]
pub struct UnknownWord(pub String);
