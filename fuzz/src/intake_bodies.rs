//! JSON bodies of requests to the intake.

use serde_json::{Value, json};
use tolom::intake::foreign;

/// What is taken is within its bounds and, written anew, is taken as the same; what is refused is refused with a short
/// problem document that repeats nothing of a card.
pub fn target(bytes: &[u8]) {
    if let Some(payment) = taken(foreign::payment(bytes)) {
        assert!(payment["amount"]["value"].as_i64().is_some_and(|value| value > 0));
        assert!(["ky", "ru", "en"].map(Value::from).contains(&payment["locale"]));
        assert_eq!(foreign::payment(payment.to_string().as_bytes()), Ok(payment));
    }
    if let Some(card) = taken(foreign::card(bytes)) {
        assert_eq!(foreign::card(card.to_string().as_bytes()), Ok(card));
    }
    if let Some(fields) = taken(foreign::challenge(bytes)) {
        assert!(fields.len() <= 32);
        for (index, (name, value)) in fields.iter().enumerate() {
            assert!(name.len() <= 128 && value.len() <= 32 * 1024 && !name.contains('\0') && !value.contains('\0'));
            assert!(fields[..index].iter().all(|(other, _)| other != name), "{name} is there twice");
        }
        let sorted = json!({ "response": fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect::<serde_json::Map<String, Value>>() });
        assert!(foreign::challenge(sorted.to_string().as_bytes()).is_ok());
    }
    if let Some(Some(valid_until)) = taken(foreign::bill(bytes)) {
        assert!((946_684_800..4_133_980_800).contains(&valid_until), "of this century: {valid_until}");
    }
}

fn taken<T>(read: foreign::Read<T>) -> Option<T> {
    let problem = match read {
        Ok(taken) => return Some(taken),
        Err(problem) => problem,
    };
    assert!([400, 422].map(Value::from).contains(&problem["status"]), "{problem}");
    let text = problem.to_string();
    assert!(text.len() <= 1000, "{text}");
    super::tells_no_number(&text);
    None
}
