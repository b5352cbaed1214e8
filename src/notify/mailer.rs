//! Sends mail by SMTP.
//!
//! A message may arrive twice, when its connection is lost between the last byte and the answer (RFC 5321, section
//! 4.5.3.2.6), but its Message-ID is constant, so that mailboxes can tell. Neither errors nor `Debug` hold an
//! address or a text; a server's answer repeats the address, so of it only the code is kept. lettre's feature
//! `tracing` stays off, for it logs every line that it sends.

use std::{error::Error as _, fmt, time::Duration};

use futures::future::join_all;
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error as SmtpError,
        client::AsyncSmtpConnection,
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::{Extension, MailBodyParameter, MailParameter},
    },
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Locale,
    connections::{AddressFault, Connections, NoConnection},
};
use crate::config::{self, Config};

/// Messages on their way at the same time, over all batches, and so connections.
const MAX_IN_FLIGHT: usize = 8;
/// From the moment a message gets its turn, connecting included; and at most a third of its lease.
const DEADLINE: Duration = Duration::from_secs(30);
/// RFC 5321, section 4.5.3.1.3: a path has 256 octets, two of them its angle brackets.
const LONGEST_ADDRESS: usize = 254;

/// A message to a payer. Made by [`Receipt::mail`](super::Receipt::mail) and [`notice_mail`](super::notice_mail).
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// Left part of the Message-ID: what is sent again has it again.
    pub id: String,
    /// The payer's address, as it was typed.
    pub to: String,
    /// The language of the texts.
    pub locale: Locale,
    /// The subject.
    pub subject: String,
    /// The message as text.
    pub text: String,
    /// The message as HTML.
    pub html: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// May go better later; the message may even have arrived.
    #[error("not sent, may be tried again: {0}")]
    Transient(MailFault),
    /// Will not go better.
    #[error("cannot be sent: {0}")]
    Permanent(MailFault),
    /// Not begun: its sender is to stop, or another one is about to take it over.
    #[error("not begun")]
    Untried,
}

/// What went wrong, without any word of the message or of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailFault {
    /// The server's reply code (RFC 5321, section 4.2).
    #[error("the mail server answered {0}")]
    Reply(u16),
    /// No connection could be made, or the server did not let us in.
    #[error("the mail server cannot be reached")]
    Unreachable,
    /// The connection ended, or brought what is no SMTP, before the message was answered.
    #[error("the connection to the mail server was lost")]
    Lost,
    /// The message's time was up.
    #[error("the mail server took too long")]
    Deadline,
    /// The payer's address is no e-mail address, or one that this server cannot take.
    #[error("the address is no e-mail address")]
    Address,
    /// The message's id cannot stand in a Message-ID.
    #[error("the message's id cannot stand in a header")]
    Id,
    /// The message could not be written.
    #[error("the message cannot be written")]
    Text,
}

/// Settings that no mail can be sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailerError {
    /// The server's address.
    #[error("mail.url: {0}")]
    Url(AddressFault),
    /// The sender.
    #[error("mail.from: `Name <user@domain>` is expected")]
    From,
    /// The right part of the Message-ID.
    #[error("mail.domain: a domain name is expected")]
    Domain,
}

/// The time during which messages are their sender's alone. What is not sent and marked by its end, others send.
#[derive(Debug, Clone)]
pub struct Lease {
    ends: Instant,
    /// No message is begun after this, ...
    stop: CancellationToken,
    /// ... and those on their way have so long.
    drain: Duration,
}

impl Lease {
    /// A lease by the settings; to be taken before the messages are claimed.
    pub fn begin(config: &Config, stop: &CancellationToken) -> Self {
        let ends = Instant::now() + Duration::from_secs(config.mail.claim_s);
        // The other half of the drain is for the marks.
        Self { ends, stop: stop.clone(), drain: Duration::from_secs(config.shutdown.drain_s) / 2 }
    }

    /// Ends when a message that takes so long, and its mark, would not be done in time any more, or at once on `stop`.
    async fn too_late_for(&self, takes: Duration) {
        let last = self.ends.checked_sub(takes * 3 / 2).unwrap_or_else(Instant::now);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep_until(last) => {}
        }
    }

    /// Ends when what is on its way is to be cut.
    async fn drained(&self) {
        self.stop.cancelled().await;
        sleep(self.drain).await;
    }
}

/// Sends messages over connections that it keeps open.
pub struct Mailer {
    connections: Connections,
    from: Mailbox,
    domain: String,
    turns: Semaphore,
    deadline: Duration,
}

impl Mailer {
    /// A mailer by the settings. Does not connect.
    pub fn new(mail: &config::Mail) -> Result<Self, MailerError> {
        let is_name = |text: &str| text.split('.').all(is_id_part);
        Ok(Self {
            connections: Connections::new(mail.url.expose(), MAX_IN_FLIGHT).map_err(MailerError::Url)?,
            from: mail.from.parse().map_err(|_| MailerError::From)?,
            domain: Some(mail.domain.clone()).filter(|domain| is_name(domain)).ok_or(MailerError::Domain)?,
            turns: Semaphore::new(MAX_IN_FLIGHT),
            deadline: DEADLINE.min(Duration::from_secs(mail.claim_s) / 3),
        })
    }

    /// The same with another deadline for each message.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sends messages side by side, while their lease lasts; the results stand in the order of the messages.
    pub async fn send(&self, messages: Vec<Mail>, lease: &Lease) -> Vec<Result<(), MailError>> {
        join_all(messages.iter().map(|message| self.send_one(message, lease))).await
    }

    async fn send_one(&self, mail: &Mail, lease: &Lease) -> Result<(), MailError> {
        let message = self.compose(mail).map_err(MailError::Permanent)?;
        let _turn = tokio::select! {
            biased;
            () = lease.too_late_for(self.deadline) => return Err(MailError::Untried),
            turn = self.turns.acquire() => turn,
        };
        // Past its deadline, a connection goes down with the future that owns it.
        let sent = tokio::select! {
            sent = self.transmit(&message) => Some(sent),
            () = sleep(self.deadline) => None,
            () = lease.drained() => None,
        };
        sent.unwrap_or(Err(MailError::Transient(MailFault::Deadline)))
    }

    async fn transmit(&self, message: &Message) -> Result<(), MailError> {
        // No answer before MAIL is about this message, so whatever it is, a later try may go better.
        let unreachable = |error: NoConnection| {
            let reply = match error {
                NoConnection::Unreachable => None,
                NoConnection::Smtp(error) => reply_code(&error),
            };
            MailError::Transient(reply.map_or(MailFault::Unreachable, MailFault::Reply))
        };
        let mut connection = self.connections.take().await.map_err(unreachable)?;
        let sent = transact(&mut connection, message).await;
        match sent {
            Ok(()) => self.connections.put_back(connection),
            Err(_) => connection.abort().await,
        }
        sent
    }

    fn compose(&self, mail: &Mail) -> Result<Message, MailFault> {
        if !is_id_part(&mail.id) {
            return Err(MailFault::Id);
        }
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, address(&mail.to)?))
            .subject(mail.subject.as_str())
            .message_id(Some(format!("<{}@{}>", mail.id, self.domain)))
            .date_now()
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
            .map_err(|_| MailFault::Address)?;
        let headers = message.headers_mut();
        headers.insert_raw(plain_header("Content-Language", mail.locale.as_str()));
        // RFC 3834: keeps holiday notices from answering.
        headers.insert_raw(plain_header("Auto-Submitted", "auto-generated"));
        Ok(message)
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailer").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// What may stand in a Message-ID as one part of a dot-atom (RFC 5322, section 3.6.4), and needs no quoting anywhere.
fn is_id_part(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn plain_header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// Reads the payer's address: without quoting, comments, white space and several recipients, all of which RFC 5321
/// has room for, no payer has, and an attacker would need.
fn address(text: &str) -> Result<Address, MailFault> {
    let text = text.trim_matches(' ');
    let odd = |letter: char| letter.is_control() || letter.is_whitespace() || r#""\()<>[],;:"#.contains(letter);
    let (user, domain) = text.rsplit_once('@').ok_or(MailFault::Address)?;
    if text.contains(odd) || text.len() > LONGEST_ADDRESS {
        return Err(MailFault::Address);
    }
    // Names of other scripts travel as RFC 5890 has them, which every server takes.
    let domain = match url::Host::parse(domain) {
        Ok(url::Host::Domain(ascii)) => ascii,
        Ok(url::Host::Ipv4(_) | url::Host::Ipv6(_)) | Err(_) => return Err(MailFault::Address),
    };
    Address::new(user, domain).map_err(|_| MailFault::Address)
}

/// One mail transaction (RFC 5321, section 3.3). Whether we may send is judged at MAIL, mostly: an account that is
/// suspended and an address that is blocked there say nothing of the message, and it goes out once that is settled.
async fn transact(connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), MailError> {
    let (envelope, text) = (message.envelope(), message.formatted());
    let parameters = if text.is_ascii() && envelope.to().iter().all(|to| to.user().is_ascii()) {
        Vec::new()
    } else if [Extension::SmtpUtfEight, Extension::EightBitMime].iter().all(|extension| offers(connection, *extension))
    {
        vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)]
    } else {
        // RFC 6531: nothing may be said to such a server.
        return Err(MailError::Permanent(MailFault::Address));
    };
    let mail = MailFrom::new(envelope.from().cloned(), parameters);
    connection.command(mail).await.map_err(|error| MailError::Transient(fault(&error)))?;
    for to in envelope.to() {
        connection.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(|error| classify(&error))?;
    }
    connection.command(Data).await.map_err(|error| MailError::Transient(fault(&error)))?;
    connection.message(&text).await.map_err(|error| classify(&error))?;
    Ok(())
}

fn offers(connection: &AsyncSmtpConnection, extension: Extension) -> bool {
    connection.server_info().supports_feature(extension)
}

fn reply_code(error: &SmtpError) -> Option<u16> {
    error.status().and_then(|code| code.to_string().parse().ok())
}

/// What is no answer may have been a success.
fn fault(error: &SmtpError) -> MailFault {
    reply_code(error).map_or(MailFault::Lost, MailFault::Reply)
}

/// An error where the recipient and the message are judged.
fn classify(error: &SmtpError) -> MailError {
    if error.is_permanent() && !is_about_us(error) {
        MailError::Permanent(fault(error))
    } else {
        MailError::Transient(fault(error))
    }
}

/// Whether a refusal is for the sender's address (RFC 3463, X.1.7 and X.1.8) or by policy (X.7): many servers keep back
/// what they hold against the sender until the recipient is named.
fn is_about_us(error: &SmtpError) -> bool {
    let answer = error.source().map(ToString::to_string).unwrap_or_default();
    let status = answer.split(' ').next().unwrap_or_default();
    status.starts_with("5.7.") || ["5.1.7", "5.1.8"].contains(&status)
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn mailer() -> Mailer {
        Mailer::new(&Config::defaults().mail).unwrap()
    }

    fn mail(to: &str) -> Mail {
        Mail {
            id: "TLM-0000000042".into(),
            to: to.into(),
            locale: Locale::Ky,
            subject: "Төлөм дүмүрчөгү № TLM-0000000042".into(),
            text: "Төлөндү\n".into(),
            html: "<p>Төлөндү</p>\n".into(),
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let with = |change: fn(&mut config::Mail)| {
            let mut mail = Config::defaults().mail;
            change(&mut mail);
            Mailer::new(&mail).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(with(|_| ()), Ok(()));
        let fault = with(|mail| mail.url = "ftp://user:hunter2@h".to_owned().into()).unwrap_err();
        assert!(fault.starts_with("mail.url: ") && !fault.contains("hunter2"), "{fault}");
        assert!(with(|mail| mail.from = "nobody".into()).unwrap_err().starts_with("mail.from: "));
        assert!(with(|mail| mail.domain = "a\r\nb".into()).unwrap_err().starts_with("mail.domain: "));
    }

    #[test]
    fn addresses_of_payers_are_read() {
        for (text, expected) in [
            ("payer@mail.example", "payer@mail.example"),
            (" first.last+tag@mail.example ", "first.last+tag@mail.example"),
            ("payer@Почта.рф", "payer@xn--80a1acny.xn--p1ai"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        let long = format!("{}@mail.example", "a".repeat(300));
        for text in [
            "",
            "payer",
            "@mail.example",
            "payer@",
            "a@b@c.example",
            "a b@c.example",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "<a@c.example>",
            "a@c.example,b@c.example",
            "a@c.example\r\nBcc: b@c.example",
            &long,
        ] {
            assert_eq!(address(text), Err(MailFault::Address), "{text}");
        }
    }

    #[test]
    fn an_id_that_would_break_the_message_id_is_refused() {
        for id in ["", "a b", "a>\r\nBcc: x@y.example", "a.b", "№1"] {
            let mail = Mail { id: id.into(), ..mail("payer@mail.example") };
            assert_eq!(mailer().compose(&mail).map(drop), Err(MailFault::Id), "{id}");
        }
    }

    proptest! {
        #[test]
        fn no_address_or_subject_adds_a_header_or_a_recipient(
            to in prop_oneof![any::<String>(), "[a-z@.\r\n:<>, \"]{0,40}", "[a-z.]{1,9}@[a-z\\PC]{1,9}\\.example"],
            subject in prop_oneof![any::<String>(), "[a-zA-Z:\r\n ө<>@=?]{0,300}"],
        ) {
            let plain = mailer().compose(&mail("payer@mail.example")).unwrap();
            let names = |message: &Message| {
                let bytes = message.formatted();
                let parsed = MessageParser::new().parse(&bytes[..]).unwrap();
                parsed.headers().iter().map(|header| header.name().to_owned()).collect::<Vec<_>>()
            };
            if let Ok(message) = mailer().compose(&Mail { subject, ..mail(&to) }) {
                prop_assert_eq!(message.envelope().to().len(), 1);
                prop_assert_eq!(names(&message), names(&plain));
                prop_assert!(message.formatted().is_ascii() || !to.is_ascii());
            }
        }
    }
}
