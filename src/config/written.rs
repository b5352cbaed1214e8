//! Settings written out, for a process that is to have exactly these.

use serde_json::Value;

use super::{Config, Secret};

impl Config {
    /// All settings as TOML, secrets in clear: for a file that only its owner can read.
    pub(crate) fn to_toml(&self) -> serde_json::Result<String> {
        let mut settings = serde_json::to_value(self)?;
        let secrets: [(&str, &str, &Secret); 5] = [
            ("database", "url", &self.database.url),
            ("broker", "url", &self.broker.url),
            ("acquirer", "token", &self.acquirer.token),
            ("mail", "url", &self.mail.url),
            ("sms", "token", &self.sms.token),
        ];
        for (section, key, secret) in secrets {
            settings[section][key] = secret.expose().into();
        }
        let mut text = String::new();
        write(&mut text, "", &settings);
        Ok(text)
    }
}

/// A line a value; tables by dotted keys.
fn write(text: &mut String, key: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(table) => {
            let dot = if key.is_empty() { "" } else { "." };
            table.iter().for_each(|(name, value)| write(text, &format!("{key}{dot}{name}"), value));
        }
        value => text.push_str(&format!("{key} = {}\n", inline(value))),
    }
}

/// A text, number or flag is written as JSON writes it.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(members) => format!("[{}]", members.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let members = table.iter().map(|(key, value)| format!("{key} = {}", inline(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let flags = [("database.url", "postgres://u:p%20\"w@h/d"), ("acquirer.token", "0123"), ("sms.token", "t")];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut config = Config::apart(&flags).unwrap();
        config.operator.name = "\"Төлөм\" \\ \n".to_owned();
        let path = std::env::temp_dir().join(format!("tolom-written-{}.toml", std::process::id()));
        std::fs::write(&path, config.to_toml().unwrap()).unwrap();
        let read = Config::load(Some(&path), &[]).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&config).unwrap());
        assert_eq!(read.database.url, config.database.url);
        assert_eq!(read.acquirer.token, config.acquirer.token);
        assert_eq!(read.sms.token, config.sms.token);
    }
}
