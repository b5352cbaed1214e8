//! `bills import`: all or nothing, safe to repeat.

use tolom::{
    bills_csv::{ImportError, ImportReport, import},
    store::bills,
};

use super::App;

const HEADER: &str = "code,applicant,amount,valid_until\n";

async fn run(app: &App, rows: &str) -> Result<ImportReport, String> {
    let file = format!("{HEADER}{rows}");
    import(&app.pool, &app.config, "passports", file.as_bytes()).await.map_err(|error| error.to_string())
}

fn report(issued: u64, changed: u64, unchanged: u64) -> ImportReport {
    ImportReport { rows: issued + changed + unchanged, issued, changed, unchanged }
}

#[tokio::test]
async fn an_import_may_be_repeated_and_changed() {
    let app = App::start().await;
    let rows = "1100000002,Б,1300.00,2030-01-31\n1100000001,А,510.00,2030-01-31\n";
    assert_eq!(run(&app, rows).await, Ok(report(2, 0, 0)));
    assert_eq!(run(&app, rows).await, Ok(report(0, 0, 2)));
    let rows = "1100000001,А,520.00,2030-01-31\n1100000002,Б,1300.00,2030-01-31\n1100000003,В,1,2030-01-31\n";
    assert_eq!(run(&app, rows).await, Ok(report(1, 1, 1)));
    let bill = bills::get(&app.pool, &"1100000001".parse().unwrap(), app.clock.now()).await.unwrap().unwrap();
    assert_eq!((bill.terms.amount.value, bill.agency.as_str()), (52_000, "passports"));
}

#[tokio::test]
async fn a_bill_that_is_paid_or_being_paid_may_be_repeated_but_not_changed_and_nothing_else_is_either() {
    let app = App::start().await;
    let rows = "1100000001,A,510.00,2030-01-31\n1100000002,B,510.00,2030-01-31\n1100000003,C,510,2030-01-31\n";
    run(&app, rows).await.unwrap();
    app.pay("1100000001").await;
    sqlx::query("UPDATE bill SET status = 'paid' WHERE code = '1100000002'").execute(&app.pool).await.unwrap();
    assert_eq!(run(&app, rows).await, Ok(report(0, 0, 3)));
    let changed =
        "1100000004,D,1,2030-01-31\n1100000003,C,1,2030-01-31\n1100000002,B,1,2030-01-31\n1100000001,A,1,2030-01-31\n";
    let told = run(&app, changed).await.unwrap_err();
    assert!(told.contains("line 4, code: this bill is paid"), "{told}");
    assert!(told.contains("line 5, code: a payment of this bill is on its way"), "{told}");
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM bill WHERE amount_minor = 51000").fetch_one(&app.pool).await.unwrap();
    assert_eq!(count, 3, "nothing was written");
}

#[tokio::test]
async fn another_agencys_bill_and_an_unknown_agency_are_refused() {
    let app = App::start().await;
    super::app::token(&app.pool, "licences", tolom::store::clients::ClientKind::Agency).await;
    run(&app, "1100000001,A,510,2030-01-31\n").await.unwrap();
    let file = format!("{HEADER}1100000001,A,510,2030-01-31\n");
    let other = import(&app.pool, &app.config, "licences", file.as_bytes()).await.unwrap_err();
    assert!(other.to_string().contains("line 2, code: this bill is another agency's"), "{other}");
    let nobody = import(&app.pool, &app.config, "nobody", file.as_bytes()).await.unwrap_err();
    assert!(matches!(nobody, ImportError::NoSuchAgency(_)));
}

#[tokio::test]
async fn a_large_file_is_imported_in_one_go() {
    use std::fmt::Write;
    let app = App::start().await;
    let mut rows = String::new();
    for number in 0..12_000 {
        writeln!(rows, "11{number:08},Applicant {number},510.00,2030-01-31").unwrap();
    }
    assert_eq!(run(&app, &rows).await, Ok(report(12_000, 0, 0)));
    assert_eq!(run(&app, &rows).await, Ok(report(0, 0, 12_000)));
}
