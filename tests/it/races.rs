//! The same payment in several hands at once: what is written must rest on what is there when it is written.

use std::time::Duration;

use futures::future::join_all;
use sqlx::PgConnection;
use tolom::{
    contracts::OperationCompleted,
    payment::{
        Outcome,
        card::DeclineReason,
        operation::{Approval, Decline},
    },
    store::{
        operations::{
            Claim, Claimed, SealedCard, Terms, claim_authorizations, claim_captures, fail_without_card,
            release_authorization,
        },
        record::{Batch, record},
        resolve,
        sessions::Sessions,
    },
};
use uuid::Uuid;

use crate::support::world::World;

fn terms(world: &World) -> Terms<'_> {
    let (send_within, lease) = (Duration::from_secs(5), Duration::from_secs(60));
    Terms { owner: "test", clock: &world.clock, send_within, lease }
}

/// A world without workers, with one accepted payment.
async fn one_accepted() -> (World, Uuid) {
    let mut world = World::prepared(|_| ()).await;
    world.run(Vec::new()).await;
    world.make_sealing_key().await;
    let bill = world.bill("1100009999").await;
    let id = world.pay(&bill, "4111111111111111").await.id().unwrap();
    (world, id)
}

async fn claimed_with_card(world: &World, payment: Uuid) -> (Claim, SealedCard) {
    let (mut claims, _) =
        claim_authorizations(&Sessions::new(world.pool.clone()), &[payment], &terms(world)).await.unwrap();
    let Some((_, Claimed::Authorize(claim, card))) = claims.pop() else { panic!("claimed") };
    (claim, card)
}

async fn claimed(world: &World, payment: Uuid) -> Claim {
    claimed_with_card(world, payment).await.0
}

fn approval(world: &World, claim: &Claim, captured: bool) -> Outcome {
    Outcome::Approved(Approval {
        acquirer_reference: None,
        authorization_code: None,
        rrn: None,
        amount: claim.amount,
        captured,
        undone: None,
        at: world.clock.now(),
    })
}

fn report(claim: &Claim, result: Outcome) -> OperationCompleted {
    OperationCompleted {
        payment: claim.payment,
        operation: claim.operation,
        kind: claim.kind,
        reference: claim.reference.clone(),
        amount: claim.amount,
        card: None,
        result,
    }
}

/// Locks of this database that somebody waits for.
const WAITS: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.datname = current_database()";

/// Records a report. When everything has been read for it, and before anything is written, `meanwhile` happens with the
/// bill in hand.
async fn record_late(
    world: &World,
    report: &OperationCompleted,
    meanwhile: impl AsyncFnOnce(&mut PgConnection),
) -> Batch {
    let sessions = Sessions::new(world.pool.clone());
    let mut rival = world.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM bill FOR UPDATE").execute(&mut *rival).await.unwrap();
    let now = world.clock.now();
    let meanwhile = async {
        world.wait_until(WAITS, 1).await;
        meanwhile(&mut rival).await;
        rival.commit().await.unwrap();
    };
    let (batch, ()) = futures::join!(record(&sessions, std::slice::from_ref(report), now, now), meanwhile);
    batch.unwrap()
}

async fn end(mut world: World) {
    world.stop().await;
    tolom::broker::remove(&world.broker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_authorization_is_claimed_anew_by_one_worker_and_the_others_do_not_fail_it() {
    let (world, payment) = one_accepted().await;
    for _ in 0..10 {
        let claims = join_all((0..6).map(async |_| {
            let (claims, facts) =
                claim_authorizations(&Sessions::new(world.pool.clone()), &[payment], &terms(&world)).await.unwrap();
            assert!(facts.is_empty(), "nobody fails it");
            claims
        }))
        .await;
        let mut claimed: Vec<_> = claims
            .into_iter()
            .flatten()
            .filter_map(|(_, claimed)| match claimed {
                Claimed::Authorize(claim, card) => Some((claim, card)),
                _ => None,
            })
            .collect();
        assert_eq!(claimed.len(), 1, "one of them has it");
        let (claim, card) = claimed.remove(0);
        release_authorization(&world.pool, &claim, &card, "refused", world.clock.now()).await.unwrap();
    }
    assert_eq!(world.count("SELECT count(*) FROM payment WHERE status = 'authorizing'").await, 1);
    end(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_outcome_in_several_hands_is_recorded_once_and_absorbed_by_the_others() {
    let (world, payment) = one_accepted().await;
    let claim = claimed(&world, payment).await;
    let report = report(&claim, approval(&world, &claim, false));
    let now = world.clock.now();
    let sessions = Sessions::new(world.pool.clone());
    let recorded = join_all((0..6).map(|_| record(&sessions, std::slice::from_ref(&report), now, now))).await;
    let announced: usize = recorded.into_iter().map(|batch| batch.unwrap().announce.len()).sum();
    assert_eq!(announced, 1, "the fact is announced once");
    assert_eq!(world.count("SELECT count(*) FROM posting").await, 1);
    let (terms, payments) = (terms(&world), [payment]);
    let claims = join_all((0..6).map(|_| claim_captures(&sessions, &payments, &terms))).await;
    let captures =
        claims.into_iter().flat_map(Result::unwrap).filter(|(_, claimed)| matches!(claimed, Claimed::Capture(_)));
    assert_eq!(captures.count(), 1);
    end(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_a_payment_for_want_of_a_card_holds_it_before_looking() {
    let (world, payment) = one_accepted().await;
    let (claim, card) = claimed_with_card(&world, payment).await;
    release_authorization(&world.pool, &claim, &card, "refused", world.clock.now()).await.unwrap();
    // It waits for the cards, and all that it has seen of the payment may be over by then: unless it holds it.
    let mut rival = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE sealed_card IN ACCESS EXCLUSIVE MODE").execute(&mut *rival).await.unwrap();
    let (payments, terms) = ([payment], terms(&world));
    let claims_it = async {
        world.wait_until(WAITS, 1).await;
        let held = sqlx::query("SELECT FROM payment WHERE id = $1 FOR NO KEY UPDATE NOWAIT").bind(payment);
        let error = held.execute(&mut *rival).await.expect_err("a claim has to wait for it");
        assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("55P03"));
        rival.rollback().await.unwrap();
    };
    let (ended, ()) = futures::join!(fail_without_card(&world.pool, &payments, &terms), claims_it);
    let (ended, facts) = ended.unwrap();
    assert!(ended.is_empty() && facts.is_empty(), "its card is there");
    end(world).await;
}

const REVERSING: &str = "SELECT count(*) FROM payment p JOIN operation o ON o.payment_id = p.id AND o.kind = 'reverse'
    WHERE p.status = 'reversing' AND o.outcome IS NULL";

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_whose_bill_is_paid_elsewhere_before_it_is_written_is_given_back() {
    let (world, payment) = one_accepted().await;
    let claim = claimed(&world, payment).await;
    record_late(&world, &report(&claim, approval(&world, &claim, true)), async |rival| {
        sqlx::query("UPDATE bill SET status = 'paid', paid_at = now()").execute(rival).await.unwrap();
    })
    .await;
    assert_eq!(world.count(REVERSING).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM receipt").await, 0);
    end(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_whose_reference_is_being_closed_before_it_is_written_is_given_back() {
    let (world, payment) = one_accepted().await;
    let claim = claimed(&world, payment).await;
    // The payment's status does not tell of it, and neither does its bill.
    record_late(&world, &report(&claim, approval(&world, &claim, true)), async |_| {
        resolve::close(&world.pool, &claim, world.clock.now()).await.unwrap();
    })
    .await;
    assert_eq!(world.count(REVERSING).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM receipt").await, 0);
    end(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_given_up_before_it_is_written_is_not_the_outcome_that_was_decided_on() {
    let (world, payment) = one_accepted().await;
    let (claim, card) = claimed_with_card(&world, payment).await;
    let batch = record_late(&world, &report(&claim, approval(&world, &claim, true)), async |_| {
        release_authorization(&world.pool, &claim, &card, "refused", world.clock.now()).await.unwrap();
    })
    .await;
    // Released as not sent, and yet approved: a contradiction, which a person has to look at.
    assert!(!batch.announce.is_empty(), "the payer is told");
    assert_eq!(world.count("SELECT count(*) FROM payment WHERE status = 'review'").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM operation WHERE conflict IS NOT NULL").await, 1);
    end(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_that_a_dead_payment_absorbs_moves_its_version() {
    let (world, payment) = one_accepted().await;
    let claim = claimed(&world, payment).await;
    let now = world.clock.now();
    let declined = Outcome::Declined(Decline { reason: DeclineReason::InsufficientFunds, code: None });
    record(&Sessions::new(world.pool.clone()), &[report(&claim, declined)], now, now).await.unwrap();
    let version = "SELECT version::bigint FROM payment WHERE status = 'declined'";
    let before = world.count(version).await;
    record(&Sessions::new(world.pool.clone()), &[report(&claim, approval(&world, &claim, true))], now, now)
        .await
        .unwrap();
    assert!(world.count(version).await > before, "who has read it before has to read it anew");
    assert_eq!(world.count("SELECT count(*) FROM operation WHERE kind = 'reverse'").await, 1);
    end(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_what_was_proven_not_sent_is_given_back() {
    let (world, payment) = one_accepted().await;
    let (claim, card) = claimed_with_card(&world, payment).await;
    release_authorization(&world.pool, &claim, &card, "refused", world.clock.now()).await.unwrap();
    sqlx::query("DELETE FROM sealed_card").execute(&world.pool).await.unwrap();
    let (ended, _) = fail_without_card(&world.pool, &[payment], &terms(&world)).await.unwrap();
    assert_eq!(ended, [payment]);
    let (sessions, now) = (Sessions::new(world.pool.clone()), world.clock.now());
    let late = report(&claim, approval(&world, &claim, false));
    record(&sessions, &[late], now, now).await.unwrap();
    let undone: Vec<String> = sqlx::query_scalar("SELECT original_reference FROM operation WHERE kind = 'reverse'")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(undone, [claim.reference], "the very authorization that the bank says it has approved");
    end(world).await;
}
