//! A mail server and an SMS gateway that keep what they get instead of delivering it: the demo shows receipts with them,
//! and tests read them.
//!
//! Real sockets that speak SMTP (RFC 5321) and our own gateway's contract strictly, so that what passes here passes
//! elsewhere, and that fail on demand in the ways real servers fail. It delivers nothing, asks nobody for a password,
//! and belongs on a loopback address.

mod caught;
mod http;
mod session;
mod sms;
mod smtp;

use std::{
    collections::{HashSet, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use caught::CaughtMail;
pub use session::LARGEST_MESSAGE;
pub use sms::{CaughtSms, SmsFault};

use self::sms::Outlet;
use crate::simulator::{Line, Lines};

/// Messages kept; the oldest go first.
const KEPT_MESSAGES: usize = 10_000;
/// Bytes of messages kept, for ten thousand of the largest would not fit anywhere.
const KEPT_BYTES: usize = 256 * 1024 * 1024;

/// How the server is to fail. By default it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Answer that many messages with 451 after their data, and forget them.
    pub busy: usize,
    /// Answer MAIL and RCPT with 550 for these addresses.
    pub refused: HashSet<String>,
    /// Answer RCPT with 554, whoever it is for: the client is on a block list.
    pub blocked: bool,
    /// Keep that many messages, then hang up instead of answering: sent, but the sender cannot know.
    pub hang_up_before_reply: usize,
    /// Keep and acknowledge that many messages, then hang up.
    pub hang_up_after_reply: usize,
    /// Say nothing for ever after that many messages' data, which are forgotten.
    pub stall: usize,
    /// Answer each message so long after it is kept.
    pub slow: Duration,
}

/// What the server does with a message that has come in whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Keep it, and say so after this.
    Keep(Duration),
    Busy,
    HangUpBeforeReply,
    HangUpAfterReply,
    Stall,
}

/// The messages, shared by the sessions, the HTTP view and the tests.
#[derive(Debug)]
struct Mailbox {
    kept: Mutex<Kept>,
    /// How many have ever been caught; changes with each.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: VecDeque<Arc<CaughtMail>>,
    bytes: usize,
    faults: Faults,
}

impl Mailbox {
    fn new() -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), count: watch::Sender::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn messages(&self) -> Vec<Arc<CaughtMail>> {
        self.lock().messages.iter().cloned().collect()
    }

    fn message(&self, number: u64) -> Option<Arc<CaughtMail>> {
        self.lock().messages.iter().find(|mail| mail.number == number).cloned()
    }

    /// The answer to a command with an address that is refused.
    fn refusal(&self, verb: &str, address: &str) -> Option<&'static str> {
        let faults = &self.lock().faults;
        match verb {
            "RCPT" if faults.blocked => Some("554 5.7.1 your host is on a block list"),
            _ => faults.refused.contains(address).then_some("550 5.1.1 no such mailbox"),
        }
    }

    /// Takes the next fault that is due, and keeps the message unless that says otherwise.
    fn take_in(&self, from: String, to: Vec<String>, raw: Vec<u8>) -> Fate {
        let mut kept = self.lock();
        let fate = kept.faults.next();
        if matches!(fate, Fate::Busy | Fate::Stall) {
            return fate;
        }
        let number = *self.count.borrow() + 1;
        kept.push(CaughtMail::new(number, from, to, raw));
        // Still under the lock: who is told of a message finds it.
        self.count.send_replace(number);
        fate
    }
}

impl Kept {
    fn push(&mut self, mail: CaughtMail) {
        self.bytes += mail.raw.len();
        self.messages.push_back(Arc::new(mail));
        while self.messages.len() > KEPT_MESSAGES || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.raw.len();
        }
    }
}

impl Faults {
    fn next(&mut self) -> Fate {
        let due = [
            (&mut self.busy, Fate::Busy),
            (&mut self.hang_up_before_reply, Fate::HangUpBeforeReply),
            (&mut self.hang_up_after_reply, Fate::HangUpAfterReply),
            (&mut self.stall, Fate::Stall),
        ];
        for (left, fate) in due {
            if *left > 0 {
                *left -= 1;
                return fate;
            }
        }
        Fate::Keep(self.slow)
    }
}

/// A running mail catcher, for tests. Dropped, it stops.
#[derive(Debug)]
pub struct MailCatcher {
    address: SocketAddr,
    mailbox: Arc<Mailbox>,
    outlet: Arc<Outlet>,
    /// Where the view and the gateway are, if they are served.
    http: Option<SocketAddr>,
    running: DropGuard,
}

impl MailCatcher {
    /// Listens for SMTP at an address, `127.0.0.1:0` for any free port.
    pub async fn start(listen: &str) -> io::Result<Self> {
        Self::serve(TcpListener::bind(listen).await?)
    }

    /// Speaks SMTP on this listener.
    fn serve(listener: TcpListener) -> io::Result<Self> {
        let (address, mailbox, stop) = (listener.local_addr()?, Mailbox::new(), CancellationToken::new());
        tokio::spawn(smtp::serve(listener, Arc::clone(&mailbox), stop.clone()));
        Ok(Self { address, mailbox, outlet: Outlet::new(), http: None, running: stop.drop_guard() })
    }

    /// The same with the view and the gateway, on any free ports of the loopback interface.
    pub async fn start_whole() -> io::Result<Self> {
        let listen = async || TcpListener::bind("127.0.0.1:0").await;
        Self::with_view(listen().await?, listen().await?)
    }

    /// Speaks SMTP on one listener, and on another shows the messages over HTTP and takes short ones, as [`serve`] does.
    pub fn with_view(smtp: TcpListener, http: TcpListener) -> io::Result<Self> {
        let address = http.local_addr()?;
        let catcher = Self { http: Some(address), ..Self::serve(smtp)? };
        let view = http::view(Arc::clone(&catcher.mailbox), Arc::clone(&catcher.outlet));
        let view = axum::serve(Lines::new(http), view.into_make_service_with_connect_info::<Line>());
        let stop = catcher.running.token().clone();
        tokio::spawn(async move {
            if let Err(error) = view.with_graceful_shutdown(stop.cancelled_owned()).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the mail caught is not shown any more");
            }
        });
        Ok(catcher)
    }

    /// Where SMTP is spoken.
    pub fn smtp_addr(&self) -> SocketAddr {
        self.address
    }

    /// The messages kept, the oldest first.
    pub fn messages(&self) -> Vec<Arc<CaughtMail>> {
        self.mailbox.messages()
    }

    /// From now on fails like this.
    pub fn set_faults(&self, faults: Faults) {
        self.mailbox.lock().faults = faults;
    }

    /// Waits until the messages kept are as wanted, and returns them. Waits for ever if they never are: the caller
    /// knows how long is too long.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&[Arc<CaughtMail>]) -> bool) -> Vec<Arc<CaughtMail>> {
        let mut count = self.mailbox.count.subscribe();
        loop {
            count.borrow_and_update();
            let messages = self.messages();
            // The sender lives in the mailbox that is borrowed here, so `changed` cannot fail.
            if wanted(&messages) || count.changed().await.is_err() {
                return messages;
            }
        }
    }

    /// Where short messages are taken; none without the view.
    pub fn sms_url(&self) -> Option<String> {
        self.http.map(|address| format!("http://{address}/sms"))
    }

    /// The short messages kept, the oldest first.
    pub fn sms(&self) -> Vec<CaughtSms> {
        self.outlet.messages()
    }

    /// From now on treats requests like this, one after the other; what comes then goes well.
    pub fn set_sms_faults(&self, faults: impl IntoIterator<Item = SmsFault>) {
        self.outlet.set_faults(faults);
    }

    /// Waits until the short messages kept are as wanted, and returns them; as patient as [`Self::wait_for`].
    pub async fn wait_for_sms(&self, mut wanted: impl FnMut(&[CaughtSms]) -> bool) -> Vec<CaughtSms> {
        let mut changes = self.outlet.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let messages = self.sms();
            if wanted(&messages) || changes.changed().await.is_err() {
                return messages;
            }
        }
    }

    /// Waits until at least `count` messages are kept.
    pub async fn wait_for_count(&self, count: usize) -> Vec<Arc<CaughtMail>> {
        self.wait_for(|messages| messages.len() >= count).await
    }
}

/// What a session without a socket comes to: the server's answers to `said`, and the messages that it kept.
pub async fn overhear(said: &[u8]) -> (Vec<u8>, Vec<Arc<CaughtMail>>) {
    let mailbox = Mailbox::new();
    let answers = smtp::answers(said, &mailbox).await;
    (answers, mailbox.messages())
}

/// Runs a mail catcher with its HTTP view until `shutdown`: `GET /` lists the messages, `GET /messages` does so in
/// JSON, `GET /messages/{n}` is one as it came; `POST /sms` takes a short message (`schemas/sms.openapi.json`) and
/// `GET /sms` lists those in JSON.
pub async fn serve(smtp: TcpListener, http: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let (mailbox, outlet) = (Mailbox::new(), Outlet::new());
    // When the view ends in an error, so does the rest.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let view = http::view(Arc::clone(&mailbox), outlet).into_make_service_with_connect_info::<Line>();
    let view = axum::serve(Lines::new(http), view).with_graceful_shutdown(stop.clone().cancelled_owned());
    let (view, ()) = tokio::join!(
        async {
            let ended = view.await;
            stop.cancel();
            ended
        },
        smtp::serve(smtp, mailbox, stop.clone()),
    );
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_much_is_kept() {
        let mut kept = Kept::default();
        for number in 0..300 {
            kept.push(CaughtMail::new(number, String::new(), Vec::new(), vec![0; 1024 * 1024]));
        }
        assert_eq!((kept.messages.len(), kept.messages[0].number), (256, 44));
        for number in 0..20_000 {
            kept.push(CaughtMail::new(number, String::new(), Vec::new(), vec![0; 10]));
        }
        assert_eq!((kept.messages.len(), kept.bytes), (KEPT_MESSAGES, KEPT_MESSAGES * 10));
    }

    #[test]
    fn faults_come_as_often_as_asked() {
        let mut faults = Faults { busy: 2, hang_up_after_reply: 1, ..Faults::default() };
        let fates: Vec<Fate> = (0..4).map(|_| faults.next()).collect();
        assert_eq!(fates, [Fate::Busy, Fate::Busy, Fate::HangUpAfterReply, Fate::Keep(Duration::ZERO)]);
    }
}
