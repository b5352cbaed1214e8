//! One SMTP session as a state machine: lines in, replies out, no I/O (RFC 5321).

/// Octets of a message, announced with EHLO (RFC 1870).
pub const LARGEST_MESSAGE: usize = 1024 * 1024;
/// RFC 5321, section 4.5.3.1.8, asks for at least 100.
const MOST_RECIPIENTS: usize = 100;
/// RFC 5321, section 4.5.3.1.3, with its angle brackets.
const LONGEST_PATH: usize = 256;
/// Refused commands before the server hangs up.
const PATIENCE: usize = 50;

/// What to do after a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Send this.
    Reply(String),
    /// Send this, then read a message.
    Data(String),
    /// Send this, then close.
    Close(String),
}

/// Where the session stands.
#[derive(Debug, Default)]
pub(super) struct Session {
    greeted: bool,
    from: Option<String>,
    to: Vec<String>,
    refused: usize,
}

impl Session {
    /// Takes a command, without its line end. `refusal` is the answer to a verb with an address that is to be refused.
    pub(super) fn command(&mut self, line: &[u8], refusal: impl Fn(&str, &str) -> Option<&'static str>) -> Answer {
        let Some(line) = std::str::from_utf8(line).ok().filter(|line| line.is_ascii()) else {
            return self.refuse("500 5.5.2 commands are ASCII");
        };
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" if !rest.trim().is_empty() => {
                self.greet();
                Answer::Reply(format!(
                    "250-tolom mail catcher\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE {LARGEST_MESSAGE}"
                ))
            }
            "HELO" if !rest.trim().is_empty() => {
                self.greet();
                reply("250 tolom mail catcher")
            }
            "EHLO" | "HELO" => self.refuse("501 5.5.4 your name is missing"),
            "MAIL" => self.mail(rest, |path| refusal("MAIL", path)),
            "RCPT" => self.rcpt(rest, |path| refusal("RCPT", path)),
            "DATA" if !rest.is_empty() => self.refuse("501 5.5.4 DATA takes nothing"),
            "DATA" if self.from.is_none() || self.to.is_empty() => self.refuse("503 5.5.1 MAIL and RCPT come first"),
            "DATA" => Answer::Data("354 end with a dot on a line of its own".to_owned()),
            "RSET" => {
                self.reset();
                reply("250 2.0.0 forgotten")
            }
            "NOOP" => reply("250 2.0.0 here"),
            "QUIT" => Answer::Close("221 2.0.0 bye".to_owned()),
            "VRFY" => reply("252 2.1.5 try it"),
            _ => self.refuse("500 5.5.2 unknown command"),
        }
    }

    /// A line that is too long, or does not end in CR LF.
    pub(super) fn bad_line(&mut self) -> Answer {
        self.refuse("500 5.5.2 a line ends in CR LF and has 512 octets at most")
    }

    /// The envelope of the message that has come in; the session is ready for the next one.
    pub(super) fn take_envelope(&mut self) -> (String, Vec<String>) {
        (self.from.take().unwrap_or_default(), std::mem::take(&mut self.to))
    }

    fn greet(&mut self) {
        self.greeted = true;
        self.reset();
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    fn mail(&mut self, rest: &str, refusal: impl Fn(&str) -> Option<&'static str>) -> Answer {
        if !self.greeted || self.from.is_some() {
            return self.refuse("503 5.5.1 EHLO comes first, and one MAIL");
        }
        let Some((path, parameters)) = path(rest, "FROM:") else {
            return self.refuse("501 5.5.4 MAIL FROM:<address> is expected");
        };
        for parameter in parameters.split_ascii_whitespace() {
            match parameter.to_ascii_uppercase().split_once('=') {
                Some(("SIZE", size)) => match size.parse::<usize>() {
                    Ok(size) if size <= LARGEST_MESSAGE => {}
                    Ok(_) => return self.refuse("552 5.3.4 the message is too large"),
                    Err(_) => return self.refuse("501 5.5.4 SIZE is a number"),
                },
                Some(("BODY", "7BIT" | "8BITMIME")) => {}
                _ => return self.refuse("555 5.5.4 unknown parameter"),
            }
        }
        if !path.is_empty() && !is_address(path) {
            return self.refuse("553 5.1.7 that is no address");
        }
        if let Some(refusal) = refusal(path) {
            return self.refuse(refusal);
        }
        self.from = Some(path.to_owned());
        reply("250 2.1.0 sender noted")
    }

    fn rcpt(&mut self, rest: &str, refusal: impl Fn(&str) -> Option<&'static str>) -> Answer {
        if self.from.is_none() {
            return self.refuse("503 5.5.1 MAIL comes first");
        }
        match path(rest, "TO:") {
            None => self.refuse("501 5.5.4 RCPT TO:<address> is expected"),
            Some((_, parameters)) if !parameters.trim().is_empty() => self.refuse("555 5.5.4 unknown parameter"),
            Some((path, _)) if !is_address(path) => self.refuse("553 5.1.3 that is no address"),
            Some(_) if self.to.len() >= MOST_RECIPIENTS => reply("452 4.5.3 too many recipients"),
            Some((path, _)) => match refusal(path) {
                Some(refusal) => self.refuse(refusal),
                None => {
                    self.to.push(path.to_owned());
                    reply("250 2.1.5 recipient noted")
                }
            },
        }
    }

    fn refuse(&mut self, text: &str) -> Answer {
        self.refused += 1;
        if self.refused > PATIENCE {
            return Answer::Close("421 4.7.0 too many errors".to_owned());
        }
        reply(text)
    }
}

fn reply(text: &str) -> Answer {
    Answer::Reply(text.to_owned())
}

/// Takes `FROM:<path> parameters` apart; a `>` inside a quoted local part does not end the path.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let after = rest.get(keyword.len()..).filter(|_| rest[..keyword.len()].eq_ignore_ascii_case(keyword))?;
    let inside = after.strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let parameters = &inside[index + 1..];
                let apart = parameters.is_empty() || parameters.starts_with(' ');
                return apart.then_some((&inside[..index], parameters));
            }
            _ => {}
        }
    }
    None
}

fn is_address(path: &str) -> bool {
    let parts = path.rsplit_once('@').is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty());
    parts && path.len() + 2 <= LONGEST_PATH && !path.bytes().any(|byte| byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The codes that a series of commands is answered with.
    fn codes(lines: &[&str]) -> Vec<u16> {
        let mut session = Session::default();
        let refused = |_: &str, address: &str| (address == "gone@b.example").then_some("550 5.1.1 no such mailbox");
        let code = |answer: Answer| match answer {
            Answer::Reply(text) | Answer::Data(text) | Answer::Close(text) => text[..3].parse().unwrap(),
        };
        lines.iter().map(|line| code(session.command(line.as_bytes(), refused))).collect()
    }

    #[test]
    fn a_session_goes_in_order() {
        let lines = ["EHLO me", "mail from:<a@b.example> SIZE=10 body=8bitmime", "RCPT TO:<c@d.example>", "DATA"];
        assert_eq!(codes(&lines), [250, 250, 250, 354]);
        assert_eq!(codes(&["HELO me", "NOOP", "RSET", "VRFY x", "QUIT"]), [250, 250, 250, 252, 221]);
    }

    #[test]
    fn out_of_order_is_refused() {
        assert_eq!(codes(&["MAIL FROM:<a@b.example>"]), [503]);
        assert_eq!(codes(&["EHLO me", "RCPT TO:<a@b.example>", "DATA"]), [250, 503, 503]);
        let lines = ["EHLO me", "MAIL FROM:<>", "MAIL FROM:<>", "DATA", "RSET", "RCPT TO:<a@b.example>"];
        assert_eq!(codes(&lines), [250, 250, 503, 503, 250, 503]);
    }

    #[test]
    fn wrong_commands_are_told_what_is_wrong() {
        let lines = [
            "EHLO",
            "HELO  ",
            "BLAH",
            "",
            "EHLO me",
            "MAIL FROM:a@b.example",
            "MAIL FROM:<a@b.example>x",
            "MAIL FROM:<a@b.example> SIZE=9999999",
            "MAIL FROM:<a@b.example> SIZE=x",
            "MAIL FROM:<a@b.example> AUTH=<>",
            "MAIL FROM:<nobody>",
            "MAIL FROM:<gone@b.example>",
            "MAIL FROM:<a@b.example>",
            "RCPT TO:<>",
            "RCPT TO:<gone@b.example>",
            "RCPT TO:<a@b.example> NOTIFY=NEVER",
            "RCPT TO:<\"a>b\"@b.example>",
            "DATA now",
            "ÄHLO",
        ];
        let expected = [501, 501, 500, 500, 250, 501, 501, 552, 501, 555, 553, 550, 250, 553, 550, 555, 250, 501, 500];
        assert_eq!(codes(&lines), expected);
    }

    #[test]
    fn recipients_and_patience_are_limited() {
        let mut lines = vec!["EHLO me", "MAIL FROM:<>"];
        lines.extend(["RCPT TO:<a@b.example>"; 101]);
        assert_eq!(codes(&lines)[101..], [250, 452]);
        assert_eq!(codes(&["BLAH"; 51])[49..], [500, 421]);
    }

    proptest! {
        #[test]
        fn no_command_makes_the_session_panic(lines: Vec<Vec<u8>>, odd in "(MAIL FROM:|RCPT TO:)[<>\"\\\\a@ é]{0,20}") {
            let mut session = Session::default();
            session.command(b"EHLO me", |_, _| None);
            for line in lines.iter().map(Vec::as_slice).chain([odd.as_bytes()]) {
                session.command(line, |_, _| None);
            }
        }
    }
}
