//! Bills from an agency's CSV file (RFC 4180): read as a whole, every fault named by its line, all or nothing.
//!
//! Reading is pure; [`import`] writes what was read in one transaction. Repeating an import changes nothing.

use std::{collections::HashMap, fmt, io::Read};

use csv::ByteRecord;
use sqlx::PgPool;
use time::{
    Date, OffsetDateTime, Time,
    format_description::well_known::Rfc3339,
    macros::{format_description, time},
};

use crate::{
    clock::{BISHKEK, Clock},
    config::Config,
    payment::{Currency, Money, PaymentCode},
    store::{
        StoreError,
        bills::{self, BillTerms, ImportConflict},
        clients::{self, ClientKind},
    },
};

/// The largest file that is read.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// The most bills in one file.
pub const MAX_ROWS: usize = 300_000;
/// The most faults that are told; the rest are counted.
pub const MAX_FAULTS: usize = 100;

const REQUIRED: [&str; 4] = ["code", "applicant", "amount", "valid_until"];
const OPTIONAL: [&str; 2] = ["service", "currency"];
const END_OF_DAY: Time = time!(23:59:59);

/// What is wrong in a line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Counted from 1, the header's line included.
    pub line: u64,
    /// The column at fault, if one is.
    pub column: Option<&'static str>,
    /// For people.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            Some(column) => write!(f, "line {}, {column}: {}", self.line, self.what),
            None => write!(f, "line {}: {}", self.line, self.what),
        }
    }
}

/// All faults of a file, the first [`MAX_FAULTS`] of them in full.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// In the order of their lines.
    pub told: Vec<Fault>,
    /// How many more there are.
    pub more: u64,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.told.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        if self.more > 0 { write!(f, "\nand {} more", self.more) } else { Ok(()) }
    }
}

impl Faults {
    fn add(&mut self, line: u64, column: Option<&'static str>, what: impl Into<String>) {
        if self.told.len() < MAX_FAULTS {
            // Some quote the file, and they are shown on a terminal.
            let what = what.into().replace(char::is_control, "\u{fffd}");
            self.told.push(Fault { line, column, what });
        } else {
            self.more += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Io(#[source] std::io::Error),
    /// The file is too large.
    #[error("the file has more than {} MiB; split it", MAX_FILE_BYTES / 1024 / 1024)]
    TooLarge,
    /// Lines are at fault.
    #[error("nothing was imported:\n{0}")]
    Faults(Faults),
    /// There is no such agency.
    #[error("there is no agency `{0}`")]
    NoSuchAgency(String),
    /// The database.
    #[error("the bills cannot be written")]
    Store(#[from] StoreError),
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    /// Bills in the file.
    pub rows: u64,
    /// New ones.
    pub issued: u64,
    /// Those whose data has changed.
    pub changed: u64,
    /// Those that were just so before.
    pub unchanged: u64,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, issued, changed, unchanged } = self;
        write!(f, "{rows} bills: {issued} issued, {changed} changed, {unchanged} as before")
    }
}

/// A bill and the line it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1, the header's line included.
    pub number: u64,
    /// The bill.
    pub bill: BillTerms,
}

/// Imports an agency's bills: all of them, or none when a line is at fault.
pub async fn import(
    pool: &PgPool,
    config: &Config,
    agency: &str,
    reader: impl Read,
) -> Result<ImportReport, ImportError> {
    let mut content = Vec::new();
    reader.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(ImportError::Io)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(ImportError::TooLarge);
    }
    let lines = read(&content, config).map_err(ImportError::Faults)?;
    if clients::by_id(pool, agency).await?.is_none_or(|client| client.kind != ClientKind::Agency) {
        return Err(ImportError::NoSuchAgency(agency.to_owned()));
    }
    let (numbers, rows): (Vec<u64>, Vec<BillTerms>) = lines.into_iter().map(|line| (line.number, line.bill)).unzip();
    let done = bills::import(pool, agency, &rows, Clock::system().now()).await?;
    let mut faults = Faults::default();
    for (index, conflict) in &done.conflicts {
        faults.add(numbers[*index], Some("code"), explain(*conflict));
    }
    if !faults.is_empty() {
        return Err(ImportError::Faults(faults));
    }
    let (issued, changed, unchanged) = (done.issued, done.changed, done.unchanged);
    Ok(ImportReport { rows: rows.len() as u64, issued, changed, unchanged })
}

const fn explain(conflict: ImportConflict) -> &'static str {
    match conflict {
        ImportConflict::NotYours => "this bill is another agency's",
        ImportConflict::BeingPaid => "a payment of this bill is on its way, and its data would change",
        ImportConflict::Paid => "this bill is paid, and its data would change",
        ImportConflict::Cancelled => "this bill was withdrawn, and its data would change; issue it again first",
    }
}

/// Reads the bills of a file, or tells everything that is wrong with it.
pub fn read(content: &[u8], config: &Config) -> Result<Vec<Line>, Faults> {
    // Spreadsheets put a byte order mark before UTF-8.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(content);
    let mut faults = Faults::default();
    let mut records = reader.byte_records();
    let columns = match records.next() {
        Some(Ok(header)) => Columns::read(&header, &mut faults),
        _ => {
            faults.add(1, None, "a header is expected: code,applicant,amount,valid_until");
            None
        }
    };
    let Some(columns) = columns else { return Err(faults) };
    let (mut lines, mut seen) = (Vec::new(), HashMap::new());
    let mut counter = LineCounter { content, at: 0, line: 1 };
    for (count, record) in records.enumerate() {
        let Ok(record) = record else {
            faults.add(0, None, "the file is not CSV (RFC 4180)");
            break;
        };
        let number = record.position().map_or(0, |position| counter.line_of(position.byte()));
        if count >= MAX_ROWS {
            faults.add(number, None, format!("more than {MAX_ROWS} bills; split the file"));
            break;
        }
        let Some(bill) = columns.bill(&record, number, config, &mut faults) else { continue };
        match seen.insert(bill.code.clone(), number) {
            Some(before) => faults.add(number, Some("code"), format!("stands in line {before} already")),
            None => lines.push(Line { number, bill }),
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(faults) }
}

/// Counts lines as an editor does. The reader's own count stands before the line ends and empty lines that it skips.
struct LineCounter<'a> {
    content: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    /// The line of the first record at or after this place; places must not go back.
    fn line_of(&mut self, place: u64) -> u64 {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        while let Some(byte) = self.content.get(self.at) {
            if self.at >= place && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            self.at += 1;
            let lone_return = *byte == b'\r' && self.content.get(self.at) != Some(&b'\n');
            if *byte == b'\n' || lone_return {
                self.line += 1;
            }
        }
        self.line
    }
}

/// Where the columns stand.
struct Columns {
    places: HashMap<&'static str, usize>,
    count: usize,
}

impl Columns {
    fn read(header: &ByteRecord, faults: &mut Faults) -> Option<Self> {
        let mut places = HashMap::new();
        for (place, name) in header.iter().enumerate() {
            let name = String::from_utf8_lossy(name).to_lowercase();
            match REQUIRED.iter().chain(&OPTIONAL).find(|known| **known == name) {
                Some(known) if places.insert(*known, place).is_some() => {
                    faults.add(1, Some(known), "this column stands there twice");
                }
                Some(_) => {}
                // A misspelt column must not be passed over in silence.
                None => faults.add(1, None, format!("unknown column `{}`", name.chars().take(40).collect::<String>())),
            }
        }
        for name in REQUIRED.iter().filter(|name| !places.contains_key(**name)) {
            faults.add(1, Some(name), "this column is missing");
        }
        faults.is_empty().then_some(Self { places, count: header.len() })
    }

    /// The bill of a line; every field is looked at, so that all faults of a line are told at once.
    fn bill(&self, record: &ByteRecord, line: u64, config: &Config, faults: &mut Faults) -> Option<BillTerms> {
        if record.len() != self.count {
            faults.add(line, None, format!("{} fields, and the header has {}", record.len(), self.count));
            return None;
        }
        let mut field = |column: &'static str| {
            let bytes = self.places.get(column).and_then(|place| record.get(*place)).unwrap_or_default();
            let text = std::str::from_utf8(bytes);
            text.inspect_err(|_| faults.add(line, Some(column), "is not UTF-8")).ok()
        };
        let (code, service, applicant) = (field("code")?, field("service")?, field("applicant")?);
        let (amount, currency, until) = (field("amount")?, field("currency")?, field("valid_until")?);
        let mut told = |column, what: String| faults.add(line, Some(column), what);
        let code = code.parse::<PaymentCode>().map_err(|error| told("code", error.to_string())).ok();
        let service = code.as_ref().and_then(|code| match config.service_of(code) {
            None => {
                told("code", "no service has codes that begin like this".to_owned());
                None
            }
            Some(known) if !service.is_empty() && service != known => {
                told("service", format!("codes that begin like this are for {known}"));
                None
            }
            Some(known) => Some(known.to_owned()),
        });
        if !bills::is_applicant(applicant) {
            told("applicant", "1 to 200 characters are wanted".to_owned());
        }
        let currency = if currency.is_empty() { Ok(Currency::KGS) } else { currency.parse() };
        let currency = currency.map_err(|error| told("currency", error.to_string())).ok();
        let amount = currency.and_then(|currency| {
            Money::parse_major(amount, currency).map_err(|error| told("amount", error.to_string())).ok()
        });
        let valid_until = read_until(until);
        if valid_until.is_none() {
            told("valid_until", "a time (RFC 3339) or a day (YYYY-MM-DD) is wanted".to_owned());
        }
        let applicant = bills::is_applicant(applicant).then(|| applicant.to_owned());
        Some(BillTerms {
            code: code?,
            service: service?,
            applicant: applicant?,
            amount: amount?,
            valid_until: valid_until?,
        })
    }
}

/// A moment, or a day: then its last second in Asia/Bishkek.
fn read_until(text: &str) -> Option<OffsetDateTime> {
    let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    let at = match day {
        Some(day) => day.with_time(END_OF_DAY).assume_offset(BISHKEK),
        None => OffsetDateTime::parse(text, &Rfc3339).ok()?,
    };
    bills::whole_second(at)
}

#[cfg(test)]
mod tests;
