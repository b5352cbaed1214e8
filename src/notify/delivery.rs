//! Sends a batch of messages and sorts them by what came of each.

use super::{Lease, Mail, MailError, MailFault, Mailer, Receipt, RenderError};
use crate::{
    config::Operator,
    store::{receipt_copies::ReceiptCopy, receipts::ReceiptRow},
};

/// What came of a batch, by the key of each message.
#[derive(Debug)]
pub struct Delivered<K> {
    /// Taken by the mail server.
    pub sent: Vec<K>,
    /// Not sent, or not known to be: may be tried again.
    pub later: Vec<(K, MailError)>,
    /// Another try would not go better.
    pub never: Vec<(K, MailError)>,
    /// Not begun.
    pub untried: Vec<K>,
}

/// Sends messages side by side while their lease lasts. One that could not be written is among those never sent.
pub async fn deliver<K>(mailer: &Mailer, messages: Vec<(K, Result<Mail, RenderError>)>, lease: &Lease) -> Delivered<K> {
    let mut delivered = Delivered { sent: Vec::new(), later: Vec::new(), never: Vec::new(), untried: Vec::new() };
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
    for (key, result) in keys.into_iter().zip(mailer.send(mails, lease).await) {
        match result {
            Ok(()) => delivered.sent.push(key),
            Err(error @ MailError::Transient(_)) => delivered.later.push((key, error)),
            Err(error @ MailError::Permanent(_)) => delivered.never.push((key, error)),
            Err(MailError::Untried) => delivered.untried.push(key),
        }
    }
    delivered
}

/// The message that brings a receipt to its payer.
pub fn receipt_mail(row: ReceiptRow, operator: &Operator, public_url: &str) -> Result<Mail, RenderError> {
    let email = row.email.clone();
    Receipt::from(row).mail(&email, operator, public_url)
}

/// The message that brings a receipt once more, because its payer asked. It has a Message-ID of its own (RFC 5322,
/// section 3.6.4: another message, another identifier), or mail servers would take it for the one that came before and
/// drop it; and says that it is a copy, or its reader would take it for a second payment.
pub fn receipt_again_mail(copy: ReceiptCopy, operator: &Operator, public_url: &str) -> Result<Mail, RenderError> {
    let ReceiptCopy { id, receipt, .. } = copy;
    let email = receipt.email.clone();
    Receipt::from(receipt).mail_again(id, &email, operator, public_url)
}
