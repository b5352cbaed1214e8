//! Receipts that are looked up by number, and asked for once more.

use tolom::store::receipts::{Resend, by_number, send_again};

use super::{all, caught, eager, pay, told, without};
use crate::support::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_sent_once_more_on_request_and_says_so_and_not_too_often() {
    let world = World::with(eager).await;
    let bill = "1100000211".parse().unwrap();
    let id = pay(&world, "1100000211", "4111111111111111", "ru").await;
    assert_eq!(world.end_of(id).await, "captured");
    caught(&world, 1).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 1).await;
    let now = world.clock.now();
    // Asked at once by many, it is sent three times and no more.
    let asked = futures::future::join_all((0..8).map(|_| send_again(&world.pool, &bill, now))).await;
    let count = |wanted| asked.iter().filter(|resend| matches!(resend, Ok(found) if *found == wanted)).count();
    assert_eq!((count(Resend::Asked), count(Resend::Enough)), (3, 5));
    caught(&world, 4).await;
    world.wait_until("SELECT count(*) FROM receipt_copy WHERE sent_at IS NOT NULL", 3).await;

    let [(first, ..), copies @ ..] = &told(&world, "1100000211")[..] else { panic!("a receipt and its copies") };
    assert!(first.starts_with("Квитанция об оплате № TLM-"), "{first}");
    for (subject, text, page) in copies {
        assert_eq!(*subject, first.replace("Квитанция", "Копия квитанции"));
        for form in [text, page] {
            assert!(form.contains("вы заплатили один раз") && form.contains("TLM-"), "{form}");
        }
    }
    let mut ids: Vec<_> = world.mail.messages().iter().filter_map(|mail| mail.message_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.iter().filter(|id| id.starts_with("<again-")).count(), 3, "each has an id of its own: {ids:?}");
    assert_eq!(ids.len(), 4);

    // A day later it may be asked for again.
    let day_later = now + time::Duration::hours(24);
    assert_eq!(send_again(&world.pool, &bill, day_later).await.unwrap(), Resend::Asked);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_bill_that_was_paid_by_a_payment_of_ours_has_a_receipt_to_send() {
    let mut world = World::prepared(eager).await;
    world.run(without(&["receipt", "notice"])).await;
    let (open, unknown) = (world.bill("1100000221").await, "1100000229".parse().unwrap());
    for bill in [&open, &unknown] {
        assert_eq!(send_again(&world.pool, bill, world.clock.now()).await.unwrap(), Resend::NoReceipt);
    }
    sqlx::query("UPDATE bill SET status = 'paid', paid_at = now()").execute(&world.pool).await.unwrap();
    assert_eq!(send_again(&world.pool, &open, world.clock.now()).await.unwrap(), Resend::NoReceipt);

    // What has not gone out the first time needs no copy: it is on its way.
    let id = pay(&world, "1100000222", "4111111111111111", "en").await;
    assert_eq!(world.end_of(id).await, "captured");
    let paid = "1100000222".parse().unwrap();
    assert_eq!(send_again(&world.pool, &paid, world.clock.now()).await.unwrap(), Resend::Asked);
    world.stop().await;
    world.run(all()).await;
    caught(&world, 1).await;
    world.wait_until("SELECT count(*) FROM receipt WHERE sent_at IS NOT NULL", 1).await;
    world.stop().await;
    assert_eq!((world.mail.messages().len(), world.count("SELECT count(*) FROM receipt_copy").await), (1, 0));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_found_by_its_number_with_nothing_personal() {
    let mut world = World::with(eager).await;
    let (id, status) = world.pay_to_the_end(&world.bill("1100000231").await, "4111111111111111").await;
    assert_eq!(status, "captured");
    let (number, paid_at): (String, time::OffsetDateTime) =
        sqlx::query_as("SELECT number, captured_at FROM receipt JOIN payment ON id = payment_id")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    let found = by_number(&world.pool, &number).await.unwrap().unwrap();
    assert_eq!((found.number.as_str(), found.amount.value, found.refunded), (number.as_str(), 51_000, 0));
    assert!(found.still_paid);
    assert_eq!(found.paid_at, paid_at);
    let shown = format!("{found:?}");
    assert!(!shown.contains("Асанов") && !shown.contains("1111") && !shown.contains(&id.to_string()), "{shown}");

    // Numbers come from anybody.
    for other in ["", "TLM-9999999999", &number.to_lowercase(), "TLM-0\0", "' OR true --", &"9".repeat(100_000), "№1"]
    {
        assert_eq!(by_number(&world.pool, other).await.unwrap(), None, "{other:.20}");
    }

    // Given back in part, it is still paid; in full, it is not.
    for (amount, refunded, still_paid) in [(1_000, 1_000, true), (50_000, 51_000, false)] {
        refund(&world, id, amount).await;
        let found = by_number(&world.pool, &number).await.unwrap().unwrap();
        assert_eq!((found.refunded, found.still_paid), (refunded, still_paid));
    }
    world.stop().await;
    world.finish_without_acquirer().await;
}

/// A refund in the books, as finance will make them: nothing asks for one yet.
async fn refund(world: &World, payment: uuid::Uuid, amount: i64) {
    sqlx::query(
        "WITH sent AS (
             INSERT INTO operation (id, payment_id, kind, reference, original_reference, acquirer, amount_minor,
                 currency, outcome, next_attempt_at)
             SELECT id, $1, 'refund', replace(id::text, '-', ''), 'r', 'simulator', $2, 'KGS', 'approved', now()
             FROM (SELECT gen_random_uuid() AS id) n
             RETURNING id)
         INSERT INTO posting (operation_id, kind, payment_id, debit_account, credit_account, amount_minor, currency, at, day)
         SELECT id, 'refund', $1, 'a', 'b', $2, 'KGS', now(), current_date FROM sent",
    )
    .bind(payment)
    .bind(amount)
    .execute(&world.pool)
    .await
    .unwrap();
}
