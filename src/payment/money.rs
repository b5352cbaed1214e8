//! Amounts as integers of minor units. There is no floating point in this project.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An ISO 4217 alphabetic currency code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Kyrgyz som (ISO 4217 numeric 417, two decimals: tyiyn).
    pub const KGS: Self = Self(*b"KGS");

    /// The code as text, for example `KGS`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// How many decimals the minor unit has (ISO 4217, column "minor unit").
    pub fn exponent(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
            | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no amount or no currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not three capital Latin letters.
    #[error("`{0}` is no currency: three capital letters of ISO 4217 are expected, for example KGS")]
    Currency(String),
    /// Not a positive decimal number with at most as many decimals as the currency has.
    #[error("`{0}` is no amount: a positive number such as 510 or 510.00 is expected")]
    Amount(String),
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(|byte| byte.is_ascii_uppercase()) => Ok(Self([*a, *b, *c])),
            _ => Err(MoneyError::Currency(text.chars().take(12).collect())),
        }
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Currency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Currency".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 alphabetic code"})
    }
}

/// An amount in minor units of its currency: 510 som are `{"value": 51000, "currency": "KGS"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Minor units (tyiyn for KGS).
    pub value: i64,
    /// ISO 4217 alphabetic code.
    pub currency: Currency,
}

impl Money {
    /// An amount of `value` minor units.
    pub const fn new(value: i64, currency: Currency) -> Self {
        Self { value, currency }
    }

    /// Reads an amount in major units, `510` or `510.00`: positive, without sign, exponent or grouping.
    pub fn parse_major(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let bad = || MoneyError::Amount(text.chars().take(24).collect());
        let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
        let decimals = currency.exponent() as usize;
        if !digits_only(whole) || fraction.is_some_and(|part| !digits_only(part) || part.len() > decimals) {
            return Err(bad());
        }
        let minor = format!("{whole}{:0<decimals$}", fraction.unwrap_or_default());
        let value: i64 = minor.parse().map_err(|_| bad())?;
        if value <= 0 {
            return Err(bad());
        }
        Ok(Self { value, currency })
    }
}

impl fmt::Display for Money {
    /// Major units with a point, for logs and tables: `510.00 KGS`. Pages and receipts format by locale.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.currency.exponent();
        let unit = 10_i64.pow(decimals);
        let (whole, fraction) = (self.value / unit, (self.value % unit).abs());
        match decimals {
            0 => write!(f, "{whole} {}", self.currency),
            _ => write!(f, "{whole}.{fraction:0width$} {}", self.currency, width = decimals as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_amount_reads_back_as_it_is_shown(value in 1_i64..i64::MAX / 1000) {
            let money = Money::new(value, Currency::KGS);
            let shown = money.to_string();
            prop_assert_eq!(Money::parse_major(shown.trim_end_matches(" KGS"), Currency::KGS), Ok(money));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            let _ = Money::parse_major(&text, Currency::KGS);
            let _ = text.parse::<Currency>();
        }
    }

    #[test]
    fn odd_amounts_are_refused() {
        for text in ["", "0", "0.00", "-5", "+5", "5.", ".5", "5.001", "5,00", "1e3", "٥", "99999999999999999999"] {
            assert!(Money::parse_major(text, Currency::KGS).is_err(), "{text}");
        }
        assert_eq!(Money::parse_major("510", Currency::KGS), Ok(Money::new(51_000, Currency::KGS)));
        assert_eq!(Money::parse_major("510.5", Currency::KGS), Ok(Money::new(51_050, Currency::KGS)));
    }
}
