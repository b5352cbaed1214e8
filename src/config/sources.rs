//! Where values come from: secrets of files of their own, and the names of sources for whoever has to mend a value.

use figment::{
    Figment, Source,
    error::Kind,
    providers::Serialized,
    value::{Dict, Value},
};

use super::ConfigError;

/// The values with every `x_file` replaced by `x`, the file's content without trailing line ends.
pub(super) fn read_secret_files(given: &Figment) -> Result<Figment, ConfigError> {
    let mut all: Dict = given.extract().map_err(|error| describe(&error, given))?;
    replace(&mut all, "")?;
    Ok(Figment::from(Serialized::defaults(all)))
}

fn replace(dict: &mut Dict, path: &str) -> Result<(), ConfigError> {
    let named: Vec<String> = dict.keys().filter(|key| key.ends_with("_file")).cloned().collect();
    for key in named {
        let Some(Value::String(_, file)) = dict.remove(&key) else {
            return Err(ConfigError(format!("{path}{key}: a file's path is expected")));
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|error| ConfigError(format!("{path}{key}: {file} cannot be read: {error}")))?;
        let name = key.trim_end_matches("_file").to_owned();
        dict.insert(name, Value::from(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    for (key, value) in dict.iter_mut() {
        if let Value::Dict(_, inner) = value {
            replace(inner, &format!("{path}{key}."))?;
        }
    }
    Ok(())
}

/// Where a value, or the list or section it stands in, was given; in brackets.
pub(super) fn source(given: &Figment, key: &str) -> String {
    let ends = key.match_indices('.').map(|(end, _)| end).chain([key.len()]);
    let keys: Vec<&str> = ends.map(|end| &key[..end]).collect();
    let found = keys
        .into_iter()
        .rev()
        .find_map(|key| given.find_metadata(&format!("{key}_file")).or_else(|| given.find_metadata(key)));
    let Some(metadata) = found else { return String::new() };
    match &metadata.source {
        // Flags are merged value by value, by this module.
        Some(Source::Code(_)) => " (from a flag)".to_owned(),
        Some(place) => format!(" (from {} {place})", metadata.name),
        None => format!(" (from {})", metadata.name),
    }
}

/// Key, source and what is allowed; never the value, which may be a secret.
pub(super) fn describe(error: &figment::Error, given: &Figment) -> ConfigError {
    let key = if error.path.is_empty() { "configuration".to_owned() } else { error.path.join(".") };
    let source = source(given, &key);
    let what = match &error.kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            let expected = expected.to_string();
            match expected.as_str() {
                "usize" | "u8" | "u16" | "u32" | "u64" | "i64" => "expected a whole number".to_owned(),
                _ => format!("expected {expected}"),
            }
        }
        Kind::UnknownField(field, allowed) => format!("unknown key `{field}`; allowed are {}", allowed.join(", ")),
        Kind::UnknownVariant(_, allowed) => format!("allowed are {}", allowed.join(", ")),
        Kind::MissingField(field) => format!("`{field}` is missing"),
        Kind::Message(text) => text.clone(),
        other => other.to_string(),
    };
    ConfigError(format!("{key}{source}: {what}"))
}
