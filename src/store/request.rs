//! What both doors, the HTTP intake and the admission of foreign messages, want of a payment's request.

use crate::{contracts::Payer, payment::Money};

/// The languages of receipts and pages.
pub const LOCALES: [&str; 3] = ["ky", "ru", "en"];

/// What is wrong with a request, whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The member at fault, for example `payer.email`.
    pub field: &'static str,
    /// For people.
    pub detail: &'static str,
}

/// Checks amount, payer and locale: what is the same whenever it is asked. A repetition must pass as its first request did,
/// so what changes with time or settings is for [`super::accept`], which knows what was accepted before.
pub fn validate(amount: Money, payer: &Payer, locale: &str) -> Result<(), Invalid> {
    let need = |fits: bool, field, detail| if fits { Ok(()) } else { Err(Invalid { field, detail }) };
    need(amount.value > 0, "amount.value", "must be a positive number of minor units")?;
    need(is_email(&payer.email), "payer.email", "is not an e-mail address")?;
    need(is_phone(&payer.phone), "payer.phone", "must be + and 7 to 15 digits (ITU-T E.164)")?;
    need(LOCALES.contains(&locale), "locale", "must be ky, ru or en")
}

/// An address that mail can be sent to: RFC 5321 4.1.2 without quoted local parts, address literals and non-ASCII
/// (RFC 6531 is not spoken by every server on the way).
pub fn is_email(text: &str) -> bool {
    const SPECIALS: &[u8] = b"!#$%&'*+-/=?^_`{|}~";
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || SPECIALS.contains(&byte))
    };
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let top_is_a_name = domain.rsplit('.').next().is_some_and(|top| !top.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 254
        && local.len() <= 64
        && local.split('.').all(atom)
        && domain.contains('.')
        && domain.split('.').all(label)
        && top_is_a_name
}

/// ITU-T E.164: `+`, a country code that does not begin with 0, 15 digits at most.
pub fn is_phone(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mail_reaches_are_taken() {
        for good in ["a@b.kg", "first.last+tag@sub.example.org", "o'neil@example.com", "x@xn--80ak6aa92e.com"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in [
            "",
            "a",
            "@b.kg",
            "a@",
            "a@b",
            "a b@c.kg",
            "a@b..kg",
            ".a@b.kg",
            "a.@b.kg",
            "a@-b.kg",
            "a@b.kg\r\nBcc: x@y.z",
            "a@[127.0.0.1]",
            "a@10.0.0.1",
            "a@b@c.kg ",
            "почта@пример.кг",
            "a@b.kg\0",
            &long,
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn phones_are_international() {
        for good in ["+996555123456", "+12125550123"] {
            assert!(is_phone(good), "{good}");
        }
        for bad in
            ["", "+", "996555123456", "+0996555123", "+996 555 123456", "+9965551234567890", "+99655x123", "+٩٩٦٥٥٥١"]
        {
            assert!(!is_phone(bad), "{bad}");
        }
    }
}
