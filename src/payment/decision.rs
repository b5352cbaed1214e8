//! What a report of an operation does to its payment: the one place where an acquirer's answer becomes a status.
//!
//! The record worker loads what is known, asks [`decide`], and writes what it says in one transaction.

use super::{
    ledger::{Position, Posting, postings},
    money::Money,
    operation::{Approval, Merge, OperationKind, Outcome, Undone},
    status::{Event, IllegalTransition, Status},
};

/// What is known of a payment when a report of one of its operations arrives.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The payment's status.
    pub status: Status,
    /// What the books hold of it.
    pub position: Position,
    /// Whether its bill is still to be paid by this payment (false: paid by another channel, or withdrawn).
    pub bill_awaits: bool,
    /// Whether the payment has a reversal already, open or acknowledged.
    pub reversal_exists: bool,
    /// The operation's kind.
    pub kind: OperationKind,
    /// The operation's amount.
    pub amount: Money,
    /// The word of the outcome stored for the operation, if any.
    pub outcome: Option<&'a str>,
}

/// What to write. An empty decision means that the report was absorbed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Store the report as the operation's outcome.
    pub store_outcome: bool,
    /// The events, each with the status after it, in order. Those that change nothing are journalled all the same.
    pub steps: Vec<(Event, Status)>,
    /// What goes into the ledger.
    pub postings: Vec<Posting>,
    /// Open a reversal of the payment.
    pub reverse: bool,
    /// A reversal was acknowledged: the payment's authorization, if still open, ends with this.
    pub authorization_ends: Option<AuthorizationEnd>,
    /// The report contradicts what is known: mark the operation for a person, with this explanation.
    pub conflict: Option<&'static str>,
}

/// How an acknowledged reversal settles an authorization, and its capture, whose outcomes were unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationEnd {
    /// It had never been approved, and now never will be.
    NeverHappened,
    /// It had been approved, and the hold has been released.
    WasHeld,
    /// It had been approved and captured, and the money has been given back.
    WasCaptured,
}

impl AuthorizationEnd {
    /// By what an acknowledged reversal has undone.
    const fn after(undone: Option<Undone>) -> Self {
        match undone {
            Some(Undone::Nothing) => Self::NeverHappened,
            Some(Undone::Hold) | None => Self::WasHeld,
            Some(Undone::Capture) => Self::WasCaptured,
        }
    }
}

impl Known<'_> {
    fn steps(&self, events: &[Event]) -> Result<Vec<(Event, Status)>, IllegalTransition> {
        let mut status = self.status;
        events
            .iter()
            .map(|event| {
                status = status.after(event)?;
                Ok((*event, status))
            })
            .collect()
    }

    fn review(&self, why: &'static str) -> Result<Decision, IllegalTransition> {
        Ok(Decision { steps: self.steps(self.status.to_review())?, conflict: Some(why), ..Decision::default() })
    }
}

const CONTRADICTION: &str = "two different definite outcomes";

/// Decides what `report` does to the payment.
///
/// Promises: a repeated or weaker report is absorbed; a dead payment's status never changes, but an approval that
/// reaches it opens a reversal (rule 5); an approved amount other than ours, and two different definite outcomes,
/// go to a person, unless the payment is dead. Errors mean a broken contract: the message is dead-lettered and `resolve` decides.
pub fn decide(known: Known<'_>, report: &Outcome) -> Result<Decision, IllegalTransition> {
    match Outcome::merge(known.outcome, report) {
        Merge::Absorbed => return Ok(Decision::default()),
        // Nobody can take a dead payment up again, and what the bank now says it holds must go back.
        Merge::Conflict if !known.status.is_live() && matches!(report, Outcome::Approved(_)) => {
            let reverse = !known.reversal_exists;
            return Ok(Decision { reverse, conflict: Some(CONTRADICTION), ..Decision::default() });
        }
        Merge::Conflict => return known.review(CONTRADICTION),
        Merge::News => {}
    }
    // The payer has answered the challenge: its completion decides, whatever is heard of the authorization before.
    if known.outcome == Some("challenged") && known.status != Status::Challenged {
        return Ok(Decision::default());
    }
    if let Outcome::Approved(approval) = report
        && approval.amount != known.amount
        && approval.undone != Some(Undone::Nothing)
    {
        let review = known.review("the acquirer acted on another amount")?;
        // What was undone is over, however much it was: nothing of ours may wait for it for ever.
        let authorization_ends =
            (known.kind == OperationKind::Reverse).then(|| AuthorizationEnd::after(approval.undone));
        return Ok(Decision { store_outcome: true, authorization_ends, ..review });
    }
    let decision = match known.kind {
        OperationKind::Authorize | OperationKind::CompleteChallenge => authorization(known, report)?,
        OperationKind::Capture => capture(known, report)?,
        OperationKind::Reverse => reversal(known, report)?,
        OperationKind::Refund | OperationKind::Inquire => Decision::default(),
    };
    let postings = match report {
        Outcome::Approved(approval) => postings(known.kind, known.amount, approval, known.position),
        Outcome::Challenged(_) | Outcome::Declined(_) | Outcome::NotSent { .. } | Outcome::Unknown { .. } => Vec::new(),
    };
    Ok(Decision { store_outcome: true, postings, ..decision })
}

fn authorization(known: Known<'_>, report: &Outcome) -> Result<Decision, IllegalTransition> {
    let dead = known.status.is_terminal();
    // With a reversal under way the money is going back, whatever the bill says.
    let wanted = known.bill_awaits && !known.reversal_exists;
    let events: &[Event] = match report {
        Outcome::Approved(_) if dead => &[Event::Approved],
        Outcome::Approved(_) if !wanted => &[Event::Approved, Event::ReversalRequired],
        Outcome::Approved(Approval { captured: true, .. }) => &[Event::ApprovedAndCaptured],
        Outcome::Approved(_) => &[Event::Approved],
        // Heard of after a day of silence: the bank's question has run out, and closing our reference settles it.
        Outcome::Challenged(_) if known.status == Status::Review => &[Event::ReviewRequired],
        // The payer has answered, and is asked no second time: closing our reference settles it.
        Outcome::Challenged(_) if known.kind == OperationKind::CompleteChallenge => &[Event::OutcomeUnknown],
        Outcome::Challenged(_) => &[Event::ChallengeRequired],
        Outcome::Declined(_) => &[Event::Declined],
        Outcome::NotSent { .. } => &[Event::ProvenNotCharged],
        Outcome::Unknown { .. } => &[Event::OutcomeUnknown],
    };
    let undo = match report {
        Outcome::Approved(_) => dead || !wanted,
        Outcome::Challenged(_) => known.status == Status::Review || known.kind == OperationKind::CompleteChallenge,
        Outcome::Declined(_) | Outcome::NotSent { .. } | Outcome::Unknown { .. } => false,
    };
    Ok(Decision { steps: known.steps(events)?, reverse: undo && !known.reversal_exists, ..Decision::default() })
}

fn capture(known: Known<'_>, report: &Outcome) -> Result<Decision, IllegalTransition> {
    let events: &[Event] = match report {
        Outcome::Approved(_) if known.bill_awaits => &[Event::Captured],
        Outcome::Approved(_) if matches!(known.status, Status::Review) => {
            return known.review("captured, and its bill was paid by another channel");
        }
        // Paid by another channel while the capture was on its way: give it back.
        Outcome::Approved(_) => &[Event::ReversalRequired],
        // Heard of after a day of silence: what is held goes back, and its acknowledgement settles the review.
        Outcome::Declined(_) | Outcome::NotSent { .. } if known.status == Status::Review => &[Event::ReviewRequired],
        Outcome::Declined(_) | Outcome::NotSent { .. } => &[Event::ReversalRequired],
        Outcome::Unknown { .. } => &[Event::OutcomeUnknown],
        Outcome::Challenged(_) => {
            return Err(IllegalTransition { status: known.status, event: Event::ChallengeRequired });
        }
    };
    let undo = matches!(events, [Event::ReversalRequired | Event::ReviewRequired]);
    Ok(Decision { steps: known.steps(events)?, reverse: undo && !known.reversal_exists, ..Decision::default() })
}

fn reversal(known: Known<'_>, report: &Outcome) -> Result<Decision, IllegalTransition> {
    let events: &[Event] = match (report, known.status) {
        (Outcome::Approved(Approval { undone, .. }), status) => {
            let nothing = *undone == Some(Undone::Nothing);
            if nothing && known.position == Position::Captured {
                return known.review("the acquirer knows nothing of a capture that our books have");
            }
            let events: &[Event] = match status {
                Status::Challenged => &[Event::ChallengeExpired],
                Status::Unknown | Status::Authorizing if nothing => &[Event::ProvenNotCharged],
                Status::Authorizing => &[Event::OutcomeUnknown, Event::ReversalRequired, Event::Reversed],
                Status::Unknown | Status::Authorized => &[Event::ReversalRequired, Event::Reversed],
                _ => &[Event::Reversed],
            };
            let end = Some(AuthorizationEnd::after(*undone));
            return Ok(Decision { steps: known.steps(events)?, authorization_ends: end, ..Decision::default() });
        }
        (Outcome::Unknown { .. }, _) => &[],
        (Outcome::Declined(_) | Outcome::NotSent { .. }, _) => {
            return known.review("the acquirer refuses to undo it");
        }
        (Outcome::Challenged(_), status) => {
            return Err(IllegalTransition { status, event: Event::ChallengeRequired });
        }
    };
    Ok(Decision { steps: known.steps(events)?, ..Decision::default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::*;
    use crate::payment::{
        Currency,
        card::DeclineReason,
        ledger::PostingKind,
        operation::{Challenge, Decline},
    };

    const AMOUNT: Money = Money::new(51_000, Currency::KGS);

    fn approved(captured: bool, undone: Option<Undone>) -> Outcome {
        Outcome::Approved(Approval {
            acquirer_reference: None,
            authorization_code: None,
            rrn: None,
            amount: AMOUNT,
            captured,
            undone,
            at: OffsetDateTime::UNIX_EPOCH,
        })
    }

    fn known(status: Status, kind: OperationKind) -> Known<'static> {
        Known {
            status,
            position: Position::Nothing,
            bill_awaits: true,
            reversal_exists: false,
            kind,
            amount: AMOUNT,
            outcome: None,
        }
    }

    fn end(decision: &Decision) -> Option<Status> {
        decision.steps.last().map(|(_, status)| *status)
    }

    #[test]
    fn an_approval_of_a_dead_payment_is_undone() {
        for status in [Status::Declined, Status::Failed, Status::Reversed] {
            let decision = decide(known(status, OperationKind::Authorize), &approved(false, None)).unwrap();
            assert_eq!(end(&decision), Some(status));
            assert!(decision.reverse);
        }
    }

    #[test]
    fn an_approval_that_contradicts_the_decline_of_a_dead_payment_is_undone() {
        for status in [Status::Declined, Status::Failed, Status::Reversed] {
            let known = Known { outcome: Some("declined"), ..known(status, OperationKind::Authorize) };
            let decision = decide(known, &approved(false, None)).unwrap();
            assert_eq!((decision.reverse, end(&decision)), (true, None));
            assert!(decision.conflict.is_some(), "and told");
            let again = Known { reversal_exists: true, ..known };
            assert!(!decide(again, &approved(false, None)).unwrap().reverse, "once");
        }
    }

    #[test]
    fn an_approval_of_a_bill_paid_elsewhere_is_undone() {
        for (kind, status, captured) in [
            (OperationKind::Authorize, Status::Authorizing, false),
            (OperationKind::Authorize, Status::Unknown, true),
            (OperationKind::Capture, Status::Authorized, false),
        ] {
            let known = Known { bill_awaits: false, ..known(status, kind) };
            let decision = decide(known, &approved(captured, None)).unwrap();
            assert_eq!(end(&decision), Some(Status::Reversing));
            assert!(decision.reverse);
        }
    }

    #[test]
    fn a_challenge_that_is_heard_of_in_review_is_closed_and_not_refused() {
        let question = Challenge { url: String::new(), fields: Vec::new(), expires_at: OffsetDateTime::UNIX_EPOCH };
        let known = Known { outcome: Some("unknown"), ..known(Status::Review, OperationKind::Authorize) };
        let decision = decide(known, &Outcome::Challenged(question)).unwrap();
        assert_eq!(end(&decision), Some(Status::Review));
        assert!(decision.store_outcome && decision.reverse);
    }

    #[test]
    fn a_payer_who_has_answered_is_asked_no_second_time() {
        let question = Challenge { url: String::new(), fields: Vec::new(), expires_at: OffsetDateTime::UNIX_EPOCH };
        for (status, outcome) in [(Status::Authorizing, None), (Status::Unknown, Some("unknown"))] {
            let known = Known { outcome, ..known(status, OperationKind::CompleteChallenge) };
            let decision = decide(known, &Outcome::Challenged(question.clone())).unwrap();
            assert_eq!(end(&decision), Some(Status::Unknown));
            assert!(decision.store_outcome && decision.reverse);
        }
    }

    #[test]
    fn a_hold_that_the_acquirer_has_forgotten_ends_whole() {
        let mut report = approved(false, Some(Undone::Nothing));
        let Outcome::Approved(approval) = &mut report else { unreachable!() };
        approval.amount = Money::new(0, Currency::KGS);
        let known = Known { position: Position::Held, ..known(Status::Reversing, OperationKind::Reverse) };
        let decision = decide(known, &report).unwrap();
        assert_eq!(end(&decision), Some(Status::Reversed));
        let amounts: Vec<_> = decision.postings.iter().map(|posting| (posting.kind, posting.amount)).collect();
        assert_eq!(amounts, [(PostingKind::Release, AMOUNT)]);
    }

    #[test]
    fn a_capture_that_is_declined_in_review_gives_the_hold_back() {
        let declined = Outcome::Declined(Decline { reason: DeclineReason::Other, code: None });
        let known = Known {
            outcome: Some("unknown"),
            position: Position::Held,
            ..known(Status::Review, OperationKind::Capture)
        };
        let decision = decide(known, &declined).unwrap();
        assert_eq!(end(&decision), Some(Status::Review));
        assert!(decision.store_outcome && decision.reverse);
    }

    #[test]
    fn another_amount_goes_to_a_person() {
        let mut report = approved(false, None);
        let Outcome::Approved(approval) = &mut report else { unreachable!() };
        approval.amount = Money::new(1, Currency::KGS);
        let decision = decide(known(Status::Authorizing, OperationKind::Authorize), &report).unwrap();
        assert_eq!(end(&decision), Some(Status::Review));
        assert!(decision.postings.is_empty());
    }

    #[test]
    fn another_amount_that_is_given_back_goes_to_a_person_and_leaves_nothing_open() {
        let mut report = approved(false, Some(Undone::Hold));
        let Outcome::Approved(approval) = &mut report else { unreachable!() };
        approval.amount = Money::new(1, Currency::KGS);
        for status in [Status::Authorizing, Status::Unknown, Status::Review] {
            let decision = decide(known(status, OperationKind::Reverse), &report).unwrap();
            assert_eq!(
                (end(&decision), decision.authorization_ends),
                (Some(Status::Review), Some(AuthorizationEnd::WasHeld))
            );
            assert!(decision.store_outcome && decision.conflict.is_some());
        }
    }

    #[test]
    fn closing_an_unknown_authorization_fails_it_only_when_there_was_nothing() {
        for (undone, expected) in
            [(Undone::Nothing, Status::Failed), (Undone::Hold, Status::Reversed), (Undone::Capture, Status::Reversed)]
        {
            for status in [Status::Unknown, Status::Authorizing] {
                let decision = decide(known(status, OperationKind::Reverse), &approved(false, Some(undone))).unwrap();
                assert_eq!(end(&decision), Some(expected));
            }
        }
    }

    #[test]
    fn a_challenge_that_the_acquirer_lets_expire_is_a_decline_and_its_late_report_changes_nothing() {
        let challenge = Challenge { url: String::new(), fields: Vec::new(), expires_at: OffsetDateTime::UNIX_EPOCH };
        let declined = Outcome::Declined(Decline { reason: DeclineReason::AuthenticationFailed, code: None });
        let waits = Known { outcome: Some("challenged"), ..known(Status::Challenged, OperationKind::Authorize) };
        assert_eq!(end(&decide(waits, &declined).unwrap()), Some(Status::Declined));
        // The payer came back in time: the completion decides.
        let answered = Known { status: Status::Authorizing, ..waits };
        assert_eq!(decide(answered, &declined), Ok(Decision::default()));
        assert_eq!(decide(waits, &approved(false, None)), Ok(Decision::default()));
        let over = Known { outcome: Some("declined"), ..known(Status::Declined, OperationKind::Authorize) };
        assert_eq!(decide(over, &Outcome::Challenged(challenge)), Ok(Decision::default()));
    }

    fn reports() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            any::<bool>().prop_map(|captured| approved(captured, None)),
            Just(Outcome::Challenged(Challenge {
                url: String::new(),
                fields: Vec::new(),
                expires_at: OffsetDateTime::UNIX_EPOCH
            })),
            Just(Outcome::Declined(Decline { reason: DeclineReason::Other, code: None })),
            Just(Outcome::NotSent { why: String::new() }),
            Just(Outcome::Unknown { why: String::new() }),
        ]
    }

    proptest! {
        /// Any order of reports of one authorization, each any number of times.
        #[test]
        fn reports_in_any_order_never_lose_an_approval(reports in prop::collection::vec(reports(), 0..16), awaits: bool) {
            let mut status = Status::Authorizing;
            let mut outcome: Option<&'static str> = None;
            let mut reversal_exists = false;
            let mut conflict = false;
            for report in &reports {
                let known = Known { status, outcome, reversal_exists, bill_awaits: awaits, ..known(status, OperationKind::Authorize) };
                let Ok(decision) = decide(known, report) else { continue };
                status = end(&decision).unwrap_or(status);
                reversal_exists |= decision.reverse;
                conflict |= decision.conflict.is_some();
                if decision.store_outcome {
                    outcome = Some(report.as_str());
                }
                if outcome == Some("approved") {
                    // Taken, given back, or in a person's hands: never forgotten.
                    let taken = matches!(status, Status::Authorized | Status::Captured);
                    prop_assert!(taken || reversal_exists || conflict);
                }
                if outcome.is_some_and(|word| word == "unknown") {
                    prop_assert_eq!(status, Status::Unknown);
                }
            }
        }
    }
}
