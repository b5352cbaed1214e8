//! An acquirer's books, which `verify` and the gauges add up.

use tolom::acquirer::books::{BookRow, captured};

/// No row moves more than its amount, and no sum wraps round to something small.
pub fn target(bytes: &[u8]) {
    let Ok(rows) = serde_json::from_slice::<Vec<BookRow>>(bytes) else { return };
    for row in &rows {
        assert!(row.amount >= 0 && row.moved().abs() <= row.amount);
        let sum: i128 =
            rows.iter().filter(|other| other.currency == row.currency).map(|row| i128::from(row.moved())).sum();
        let told = i128::from(captured(&rows, &row.currency));
        assert!(told == sum || told.abs() > i128::from(i64::MAX / 2), "{told} for {sum}");
        if rows.len() > 100 {
            break;
        }
    }
}
