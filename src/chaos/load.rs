//! The payers: they come on a schedule that waits for nobody, repeat a request under its key until it is answered,
//! confirm what their bank asks, and try again when they are told that nothing was charged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::{Clock, Dice, bishkek_day},
    config::{Config, Secret},
    contracts,
    payer::{Payer, PayerError, Request, SealingKey, Submitted},
    payment::{PaymentCode, PublicStatus},
    simulator::cards::ONE_TIME_CODE,
    stage::{self, AMOUNT},
};

/// How long a payer waits for an answer before the request is repeated.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a payer looks at a silent page before it is loaded again.
const LOOKS_FOR: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// More payers than that look at a page, or wait for an answer, and whoever comes turns away: the machine that plays the
/// payers plays everything else too.
const MOST_VISITS: usize = 200;
const MOST_WAITING: usize = 60;

const APPROVED: &str = "4111111111111111";
/// Its reversal is booked and answered 500 the first time.
const REVERSAL_ERROR: &str = "4000000000050122";
/// Test cards and how many in a hundred payers hold them; the simulator's table says what each one does.
const CARDS: [(&str, u64); 18] = [
    (APPROVED, 30),
    ("5555555555554444", 13),
    ("4000000000009995", 3),
    ("4000000000000002", 3),
    ("4000000000003220", 8),
    ("4000000000050007", 2),
    ("4000000000050015", 3),
    ("4000000000050023", 3),
    ("4000000000050031", 5),
    ("4000000000050049", 4),
    ("4000000000050056", 3),
    ("4000000000050064", 5),
    ("4000000000050072", 1),
    ("4000000000050080", 3),
    ("4000000000050098", 4),
    ("4000000000050106", 3),
    ("4000000000050114", 4),
    (REVERSAL_ERROR, 3),
];

/// What a payer does beside paying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Plain,
    /// Sends everything twice under one key.
    ClicksTwice,
    /// Pays a bill that another payer pays at the same moment.
    HasRival,
    /// Pays a bill that is paid by another channel meanwhile.
    PaysElsewhere,
}

/// What the payers have heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// Payments that somebody wanted to make.
    pub(super) offered: u64,
    /// Payers who turned away, for too many were waiting.
    pub(super) turned_away: u64,
    /// Answers to submissions by kind, the missing ones too.
    pub(super) answers: BTreeMap<String, u64>,
    /// Payments that were answered 202.
    pub(super) accepted: BTreeSet<Uuid>,
    /// Keys that were answered with more than one payment.
    pub(super) contradictions: Vec<String>,
    /// Requests that had no answer by the end.
    pub(super) unanswered: u64,
    /// Challenges that payers confirmed.
    pub(super) confirmed: u64,
    /// Bills that an agency marked paid by another channel.
    pub(super) paid_elsewhere: u64,
}

/// Everybody who pays. A clone is another handle.
#[derive(Clone)]
pub(super) struct Crowd(Arc<Inner>);

struct Inner {
    sites: Vec<Payer>,
    agency: Secret,
    config: Arc<Config>,
    clock: Clock,
    next_site: AtomicUsize,
    /// Requests that are being repeated until they are answered.
    waiting: AtomicUsize,
    key: Mutex<Option<SealingKey>>,
    heard: Mutex<Heard>,
    /// Nobody comes any more.
    closed: CancellationToken,
}

impl Crowd {
    /// Payers who use these sites in turn, as behind a load balancer that knows nothing.
    pub(super) fn new(sites: Vec<Payer>, agency: Secret, config: Arc<Config>, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            sites,
            agency,
            config,
            clock,
            next_site: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            key: Mutex::default(),
            heard: Mutex::default(),
            closed: CancellationToken::new(),
        }))
    }

    /// What was heard so far.
    pub(super) fn heard(&self) -> Heard {
        self.0.heard().clone()
    }

    /// Requests that have no answer yet.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// From now on nobody comes, and nobody tries again; who waits for an answer goes on waiting.
    pub(super) fn close(&self) {
        self.0.closed.cancel();
    }

    /// Has payers come, `rate` a second, until it is closed; then sees everyone to the end. Dropped, all go home.
    pub(super) async fn come(self, bills: Vec<PaymentCode>, rate: f64, seed: u64) {
        let start = Instant::now();
        let mut dice = Dice::new(!seed);
        let mut visits = JoinSet::new();
        for (number, bill) in bills.into_iter().enumerate() {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.0.closed.cancelled() => break,
            }
            let (inner, card, habit) = (Arc::clone(&self.0), card(&mut dice), habit(&mut dice));
            let tries_again = dice.below(2) == 0;
            while visits.try_join_next().is_some() {}
            if visits.len() >= MOST_VISITS || self.waiting() >= MOST_WAITING {
                self.0.heard().turned_away += 1;
                continue;
            }
            visits.spawn(async move { inner.visit(&bill, card, habit, tries_again).await });
        }
        visits.join_all().await;
    }
}

fn card(dice: &mut Dice) -> &'static str {
    let mut left = dice.below(CARDS.iter().map(|(_, share)| share).sum());
    for (number, share) in CARDS {
        if left < share {
            return number;
        }
        left -= share;
    }
    APPROVED
}

fn habit(dice: &mut Dice) -> Habit {
    match dice.below(20) {
        0 | 1 => Habit::ClicksTwice,
        2 => Habit::HasRival,
        3 => Habit::PaysElsewhere,
        _ => Habit::Plain,
    }
}

impl Inner {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn site(&self) -> &Payer {
        &self.sites[self.next_site.fetch_add(1, Ordering::Relaxed) % self.sites.len()]
    }

    /// One payer, or two on one bill, from the first click to the last page.
    async fn visit(&self, bill: &PaymentCode, card: &'static str, habit: Habit, tries_again: bool) {
        let card = if habit == Habit::PaysElsewhere { REVERSAL_ERROR } else { card };
        let ended = if habit == Habit::HasRival {
            futures::join!(self.pay(bill, card, habit), self.pay(bill, APPROVED, habit)).0
        } else {
            self.pay(bill, card, habit).await
        };
        let may_try_again = matches!(ended, Some(PublicStatus::Declined | PublicStatus::NotCharged));
        if may_try_again && tries_again && !self.closed.is_cancelled() {
            self.pay(bill, APPROVED, Habit::Plain).await;
        }
    }

    async fn pay(&self, bill: &PaymentCode, card: &str, habit: Habit) -> Option<PublicStatus> {
        self.heard().offered += 1;
        let key = Uuid::new_v4().to_string();
        let id = self.submit(bill, card, &key).await?;
        if habit == Habit::ClicksTwice {
            let again = self.submit(bill, card, &key).await;
            if again != Some(id) {
                self.heard().contradictions.push(format!("one key, two answers: {id} and then {again:?}"));
            }
        }
        if habit == Habit::PaysElsewhere {
            self.pay_elsewhere(bill).await;
        }
        Some(self.follow(id).await)
    }

    /// Repeats a request under its key until it is answered: its payment, or nothing if it was refused for good.
    async fn submit(&self, bill: &PaymentCode, card: &str, key: &str) -> Option<Uuid> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.heard().unanswered += 1;
        let mut request = self.request(bill, card).await;
        let mut pause = PAUSE;
        let answered = loop {
            let answer = timeout(PATIENCE, self.site().submit(&request, key)).await;
            let (word, next) = judge(answer.ok());
            *self.heard().answers.entry(word).or_default() += 1;
            match next {
                Next::Accepted(id) => break Some(id),
                Next::Refused => break None,
                Next::Repeat(asked) => {
                    sleep(asked.max(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Next::SealAnew => {
                    self.key.lock().unwrap_or_else(PoisonError::into_inner).take();
                    request = self.request(bill, card).await;
                }
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut heard = self.heard();
        heard.unanswered -= 1;
        heard.accepted.extend(answered);
        answered
    }

    async fn request(&self, bill: &PaymentCode, card: &str) -> Request {
        let key = self.sealing_key().await;
        let now = self.clock.now();
        let today = bishkek_day(now);
        Request {
            amount: AMOUNT,
            card: self.sites[0].seal(&key, bill, &stage::card(card, today), now),
            payer: contracts::Payer { email: format!("payer-{bill}@mail.example"), phone: "+996555123456".to_owned() },
            locale: "ky".to_owned(),
            terms: self.config.terms_in_force(today).to_owned(),
            bill: bill.clone(),
        }
    }

    async fn sealing_key(&self) -> SealingKey {
        loop {
            if let Some(key) = self.key.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return key;
            }
            match timeout(PATIENCE, self.site().keys()).await {
                Ok(Ok(keys)) => *self.key.lock().unwrap_or_else(PoisonError::into_inner) = keys.into_iter().next(),
                Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// The agency hears that the bill was paid by another channel, and says so until it is answered.
    async fn pay_elsewhere(&self, bill: &PaymentCode) {
        loop {
            let answer = timeout(PATIENCE, self.site().mark_paid(bill, self.agency.expose())).await;
            match answer {
                Ok(Ok(answer)) if answer.status.is_success() => {
                    self.heard().paid_elsewhere += 1;
                    return;
                }
                // It is captured already, and stays so.
                Ok(Ok(answer)) if answer.status.as_u16() == 409 => return,
                _ => sleep(PAUSE).await,
            }
        }
    }

    /// Follows a payment to its end, and confirms what the bank asks.
    async fn follow(&self, id: Uuid) -> PublicStatus {
        let mut confirmed = false;
        loop {
            let mut last = None;
            let follow = self.site().follow_until(id, |news| {
                last = Some(news.public_status);
                news.public_status == PublicStatus::Confirm && !confirmed
            });
            let followed = timeout(LOOKS_FOR, follow).await;
            match (followed, last) {
                (Ok(Ok(_)), Some(PublicStatus::Confirm)) => confirmed = self.confirm(id).await,
                (Ok(Ok(_)), Some(status)) => return status,
                _ => sleep(PAUSE).await,
            }
        }
    }

    /// Says whether the intake has taken it, or will never.
    async fn confirm(&self, id: Uuid) -> bool {
        let confirmed = timeout(PATIENCE, self.site().challenge(id, &[("otp", ONE_TIME_CODE)])).await;
        match confirmed {
            Ok(Ok(answer)) if answer.status.is_success() => {
                self.heard().confirmed += 1;
                true
            }
            Ok(Ok(answer)) => answer.status.as_u16() == 409 && answer.problem_name() == "challenge-over",
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// What a payer does after an answer.
enum Next {
    Accepted(Uuid),
    Refused,
    /// Not before so long.
    Repeat(Duration),
    SealAnew,
}

/// Names an answer, and says what follows from it. None is no answer in time.
fn judge(answer: Option<Result<Submitted, PayerError>>) -> (String, Next) {
    let answer = match answer {
        None => return ("no answer in time".to_owned(), Next::Repeat(Duration::ZERO)),
        Some(Err(_)) => return ("connection refused or broken".to_owned(), Next::Repeat(Duration::ZERO)),
        Some(Ok(answer)) => answer,
    };
    if let Some(id) = answer.id() {
        let word = if answer.is_replay() { "202 replayed under its key" } else { "202 accepted" };
        return (word.to_owned(), Next::Accepted(id));
    }
    let retry_after: Option<u64> =
        answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let problem = answer.problem_name();
    let word = match (answer.status.as_u16(), retry_after) {
        (503, None) => format!("503 {problem} WITHOUT Retry-After"),
        (503, Some(_)) => format!("503 {problem} with Retry-After"),
        (status, _) => format!("{status} {problem}"),
    };
    let pause = Duration::from_secs(retry_after.unwrap_or_default());
    let next = match (answer.status.as_u16(), problem) {
        (422, "card-key-unknown" | "card-expired") => Next::SealAnew,
        (429 | 500..=599, _) | (409, "request-in-flight") => Next::Repeat(pause),
        _ => Next::Refused,
    };
    (word, next)
}
