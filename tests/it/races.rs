//! The same message in several hands at once: what is decided must rest on what is there after the wait for the lock.

use std::time::Duration;

use futures::future::join_all;
use tolom::{
    contracts::OperationCompleted,
    payment::{
        Outcome,
        operation::{Approval, OperationKind},
    },
    store::{
        operations::{Claimed, Terms, claim_authorizations, claim_captures, fail_without_card, release_authorization},
        record::record,
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

async fn end(mut world: World) {
    world.stop().await;
    tolom::broker::remove(&world.broker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_authorization_is_claimed_anew_by_one_worker_and_the_others_do_not_fail_it() {
    let (world, payment) = one_accepted().await;
    for _ in 0..10 {
        let claims = join_all((0..6).map(async |_| {
            let (claims, facts) = claim_authorizations(&world.pool, &[payment], &terms(&world)).await.unwrap();
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
    let (mut claims, _) = claim_authorizations(&world.pool, &[payment], &terms(&world)).await.unwrap();
    let Some((_, Claimed::Authorize(claim, _))) = claims.pop() else { panic!("claimed") };
    let report = OperationCompleted {
        payment,
        operation: claim.operation,
        kind: OperationKind::Authorize,
        reference: claim.reference.clone(),
        amount: claim.amount,
        card: None,
        result: Outcome::Approved(Approval {
            acquirer_reference: None,
            authorization_code: None,
            rrn: None,
            amount: claim.amount,
            captured: false,
            undone: None,
            at: world.clock.now(),
        }),
    };
    let now = world.clock.now();
    let recorded = join_all((0..6).map(|_| record(&world.pool, std::slice::from_ref(&report), now, now))).await;
    let announced: usize = recorded.into_iter().map(|batch| batch.unwrap().announce.len()).sum();
    assert_eq!(announced, 1, "the fact is announced once");
    assert_eq!(world.count("SELECT count(*) FROM posting").await, 1);
    let (terms, payments) = (terms(&world), [payment]);
    let claims = join_all((0..6).map(|_| claim_captures(&world.pool, &payments, &terms))).await;
    let captures =
        claims.into_iter().flat_map(Result::unwrap).filter(|(_, claimed)| matches!(claimed, Claimed::Capture(_)));
    assert_eq!(captures.count(), 1);
    end(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_a_payment_for_want_of_a_card_holds_it_before_looking() {
    let (world, payment) = one_accepted().await;
    let (mut claims, _) = claim_authorizations(&world.pool, &[payment], &terms(&world)).await.unwrap();
    let Some((_, Claimed::Authorize(claim, card))) = claims.pop() else { panic!("claimed") };
    release_authorization(&world.pool, &claim, &card, "refused", world.clock.now()).await.unwrap();
    // It waits for the cards, and all that it has seen of the payment may be over by then: unless it holds it.
    let mut rival = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE sealed_card IN ACCESS EXCLUSIVE MODE").execute(&mut *rival).await.unwrap();
    let (payments, terms) = ([payment], terms(&world));
    let claims_it = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        world.wait_until(waits, 1).await;
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
