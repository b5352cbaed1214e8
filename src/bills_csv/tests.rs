use proptest::prelude::*;
use time::macros::datetime;

use super::*;

fn read_text(text: &str) -> Result<Vec<Line>, String> {
    read(text.as_bytes(), &Config::defaults()).map_err(|faults| faults.to_string())
}

#[test]
fn a_spreadsheets_file_is_read() {
    let text = "\u{feff}Code,applicant,amount,valid_until,currency,service\r\n\
                1100000001,\"Асанов, Айбек\",510.00,2026-12-31,,passport\r\n\r\n\
                1600000002, Toktobek uulu , 1300 ,2027-01-01T00:00:00+06:00,KGS,\r\n";
    let lines = read_text(text).unwrap();
    assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4]);
    let first = &lines[0].bill;
    assert_eq!((first.applicant.as_str(), first.service.as_str()), ("Асанов, Айбек", "passport"));
    assert_eq!(first.amount, Money::new(51_000, Currency::KGS));
    assert_eq!(first.valid_until, datetime!(2026-12-31 17:59:59 UTC));
    let second = &lines[1].bill;
    assert_eq!((second.applicant.as_str(), second.amount.value), ("Toktobek uulu", 130_000));
    assert_eq!(second.valid_until, datetime!(2026-12-31 18:00:00 UTC));
}

#[test]
fn every_fault_is_told_by_line_and_column() {
    let text = "code,applicant,amount,valid_until,service,currency\n\
                11x,A,510,2026-12-31,,\n\
                1100000001,,5.001,soon,driving_licence,som\n\
                9900000001,A,510,2026-12-31,,\n\
                1100000002,A,510\n\
                1100000003,A,510,2026-12-31,,\n\
                1100000003,A,510,2026-12-31,,\n\
                1100000004,A,-1,1926-12-31,,\n";
    let told = read_text(text).unwrap_err();
    for expected in [
        "line 2, code: a payment code has",
        "line 3, service: codes that begin like this are for passport",
        "line 3, applicant: ",
        "line 3, currency: `som`",
        "line 3, valid_until: ",
        "line 4, code: no service",
        "line 5: 3 fields, and the header has 6",
        "line 7, code: stands in line 6 already",
        "line 8, amount: `-1`",
        "line 8, valid_until: ",
    ] {
        assert!(told.contains(expected), "{expected} in:\n{told}");
    }
    assert!(!told.contains("line 6:"));
}

#[test]
fn the_header_must_be_right() {
    assert!(read_text("").unwrap_err().contains("a header is expected"));
    assert!(read_text("code,applicant,amount\n").unwrap_err().contains("line 1, valid_until: this column is missing"));
    assert!(read_text("code,applicant,amount,valid_until,curency\n").unwrap_err().contains("unknown column `curency`"));
    assert!(read_text("code,code,applicant,amount,valid_until\n").unwrap_err().contains("twice"));
    assert_eq!(read_text("code,applicant,amount,valid_until\n").unwrap(), []);
}

#[test]
fn faults_are_bounded_and_bytes_that_are_no_text_are_one() {
    let mut text = b"code,applicant,amount,valid_until\n1100000001,\xff,510,2026-12-31\n".to_vec();
    assert!(read(&text, &Config::defaults()).unwrap_err().to_string().contains("line 2, applicant: is not UTF-8"));
    text.extend(b"x,A,510,2026-12-31\n".repeat(500));
    let faults = read(&text, &Config::defaults()).unwrap_err();
    assert_eq!((faults.told.len(), faults.more), (MAX_FAULTS, 401));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(content: Vec<u8>) {
        let _ = read(&content, &Config::defaults());
    }

    #[test]
    fn no_fields_make_the_reader_panic(rows in prop::collection::vec("[0-9a-z,\"\n. :+TZ-]{0,60}", 0..6)) {
        let text = format!("code,applicant,amount,valid_until\n{}", rows.join("\n"));
        let _ = read(text.as_bytes(), &Config::defaults());
    }
}
