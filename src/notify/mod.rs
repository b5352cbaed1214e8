//! Receipts and notices: what they say in three languages, how they look, and how they reach the payer by mail and by
//! SMS.
//!
//! The boundary: Fluent, the PDF writer, lettre and the gateway's HTTP stay in here. Whoever sends a receipt fills in a
//! [`Receipt`], turns it into a [`Mail`] (or a notice, by [`notice_mail`]) and hands that to a [`Mailer`], or into an
//! [`Sms`] by [`receipt_sms`] for a [`Gateway`]; whoever shows one asks for [`Receipt::html`], [`Receipt::pdf`] or
//! [`Receipt::json`]. Names, addresses and texts are in no error, log line or `Debug`
//! output.

mod connections;
mod delivery;
pub mod fluent;
mod format;
mod mailer;
mod notice;
mod pdf;
mod qr;
mod receipt;
mod short;
pub mod shown;
mod sms;
mod texts;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use connections::AddressFault;
pub use delivery::{Delivered, deliver, receipt_again_mail, receipt_mail};
pub use mailer::{Lease, Mail, MailError, MailFault, Mailer, MailerError};
pub use notice::{Sender, notice_mail};
pub use receipt::{RECEIPT_STYLE, Receipt, RenderError};
pub use short::receipt_sms;
pub use sms::{Gateway, GatewayError, Sms, SmsError, SmsFault};

/// The languages of the payer's pages and receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locale {
    /// Kyrgyz.
    Ky,
    /// Russian.
    Ru,
    /// English.
    En,
}

impl Locale {
    /// Every language there is, the state language first.
    pub const ALL: [Self; 3] = [Self::Ky, Self::Ru, Self::En];

    /// The ISO 639-1 code, as in addresses of pages and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ky => "ky",
            Self::Ru => "ru",
            Self::En => "en",
        }
    }
}

/// A language that there are no texts in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown language: ky, ru or en is expected")]
pub struct UnknownLocale;

impl FromStr for Locale {
    type Err = UnknownLocale;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|locale| locale.as_str() == text).ok_or(UnknownLocale)
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
