//! An agency's bills.

use std::{collections::HashSet, sync::LazyLock};

use time::format_description::well_known::Rfc3339;
use tolom::{
    bills_csv::{self, MAX_FAULTS},
    config::Config,
    store::bills::is_applicant,
};

static CONFIG: LazyLock<Config> = LazyLock::new(Config::defaults);

/// Every bill that is read is one that may be stored, in a line of the file, and written anew it reads the same. Every
/// fault names a line of the file.
pub fn target(bytes: &[u8]) {
    let lines_of_the_file = 1 + lines_ended(bytes);
    match bills_csv::read(bytes, &CONFIG) {
        Ok(lines) => {
            let codes: HashSet<_> = lines.iter().map(|line| &line.bill.code).collect();
            assert_eq!(codes.len(), lines.len(), "each bill once");
            for line in &lines {
                let bill = &line.bill;
                assert!((2..=lines_of_the_file).contains(&line.number), "line {}", line.number);
                assert_eq!(CONFIG.service_of(&bill.code), Some(bill.service.as_str()));
                assert!(bill.amount.value > 0 && is_applicant(&bill.applicant));
                assert!((2000..=2100).contains(&bill.valid_until.year()) && bill.valid_until.nanosecond() == 0);
            }
            assert!(lines.is_sorted_by_key(|line| line.number));
            let again = bills_csv::read(write(&lines).as_bytes(), &CONFIG).expect("what we write, we read");
            assert!(again.iter().map(|line| &line.bill).eq(lines.iter().map(|line| &line.bill)));
        }
        Err(faults) => {
            assert!((1..=MAX_FAULTS).contains(&faults.told.len()));
            assert!(faults.more == 0 || faults.told.len() == MAX_FAULTS);
            for fault in &faults.told {
                assert!((1..=lines_of_the_file).contains(&fault.line), "{fault} of {lines_of_the_file}");
                assert!(fault.what.len() <= 250 && !fault.what.contains(char::is_control), "{fault:?}");
            }
            assert!(faults.told.is_sorted_by_key(|fault| fault.line));
        }
    }
}

/// As an editor counts them.
fn lines_ended(bytes: &[u8]) -> u64 {
    let ends = bytes.iter().enumerate().filter(|(index, byte)| match byte {
        b'\n' => true,
        b'\r' => bytes.get(index + 1) != Some(&b'\n'),
        _ => false,
    });
    ends.count() as u64
}

fn write(lines: &[bills_csv::Line]) -> String {
    let mut text = "valid_until,code,applicant,currency,amount,service\n".to_owned();
    for bills_csv::Line { bill, .. } in lines {
        let until = bill.valid_until.format(&Rfc3339).expect("a time of this century");
        let amount = bill.amount.to_string();
        let (amount, currency) = amount.split_once(' ').expect("an amount and its currency");
        let applicant = bill.applicant.replace('"', "\"\"");
        text.push_str(&format!("{until},{},\"{applicant}\",{currency},{amount},{}\n", bill.code, bill.service));
    }
    text
}
