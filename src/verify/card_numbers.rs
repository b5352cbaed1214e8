//! Rule 7: what looks like a card's number where foreign text may stand, named without telling it.

use sqlx::PgPool;

use crate::{
    payment::card::luhn,
    store::{StoreError, verify},
};

/// Numbers that are named at most.
const NAMED: usize = 100;

/// How many rows were looked at, and where a card's number was found.
pub(super) async fn look(pool: &PgPool) -> Result<(i64, Vec<String>), StoreError> {
    let (mut named, mut more) = (Vec::new(), 0_u64);
    let checked = verify::long_digits(pool, |place, digits| {
        if !luhn(digits) {
            return;
        }
        if named.len() < NAMED {
            named.push(format!("{place} holds {}", masked(digits)));
        } else {
            more += 1;
        }
    })
    .await?;
    named.extend((more > 0).then(|| format!("and {more} more")));
    Ok((checked, named))
}

/// As much of it as may be shown: the first six digits and the last four (PCI DSS 4.0.1, 3.4.1).
fn masked(digits: &str) -> String {
    let hidden = digits.len().saturating_sub(10);
    let (first, rest) = digits.split_at(digits.len().min(6));
    format!("{first}{}{}", "*".repeat(hidden), &rest[hidden.min(rest.len())..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_and_four_digits_are_shown() {
        assert_eq!(masked("4111111111111111"), "411111******1111");
        assert_eq!(masked("4222222222222"), "422222***2222");
    }
}
