//! Sends a batch of messages and sorts them by what came of each.

use super::{Mail, MailError, MailFault, Mailer, Receipt, RenderError};
use crate::{config::Operator, store::receipts::ReceiptRow};

/// What came of a batch, by the key of each message.
#[derive(Debug)]
pub struct Delivered<K> {
    /// Taken by the mail server.
    pub sent: Vec<K>,
    /// Not sent, or not known to be: may be tried again.
    pub later: Vec<(K, MailError)>,
    /// Another try would not go better.
    pub never: Vec<(K, MailError)>,
}

/// Sends messages side by side. One that could not be written is among those never sent.
pub async fn deliver<K>(mailer: &Mailer, messages: Vec<(K, Result<Mail, RenderError>)>) -> Delivered<K> {
    let mut delivered = Delivered { sent: Vec::new(), later: Vec::new(), never: Vec::new() };
    let (mut keys, mut mails) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
    for (key, written) in messages {
        match written {
            Ok(mail) => {
                keys.push(key);
                mails.push(mail);
            }
            Err(_) => delivered.never.push((key, MailError::Permanent(MailFault::Text))),
        }
    }
    for (key, result) in keys.into_iter().zip(mailer.send(mails).await) {
        match result {
            Ok(()) => delivered.sent.push(key),
            Err(error @ MailError::Transient(_)) => delivered.later.push((key, error)),
            Err(error @ MailError::Permanent(_)) => delivered.never.push((key, error)),
        }
    }
    delivered
}

/// The message that brings a receipt to its payer.
pub fn receipt_mail(row: ReceiptRow, operator: &Operator, public_url: &str) -> Result<Mail, RenderError> {
    let email = row.email.clone();
    Receipt::from(row).mail(&email, operator, public_url)
}
