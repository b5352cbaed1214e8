//! An SMTP client, and the mail that it sends, at the mail catcher.

use std::cell::OnceCell;

use tokio::runtime::{Builder, Runtime};
use tolom::mail_catcher::{self, LARGEST_MESSAGE};

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// Every answer is one line with a code, or a list of such (RFC 5321, section 4.2.1); exactly what was acknowledged is
/// kept, with its envelope, within the limits that were announced.
pub fn target(bytes: &[u8]) {
    let (answers, kept) = RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
        runtime.block_on(mail_catcher::overhear(bytes))
    });
    let answers = String::from_utf8(answers).expect("answers are ASCII");
    assert!(answers.is_ascii() && answers.starts_with("220 ") && answers.ends_with("\r\n"));
    let lines: Vec<&str> = answers.trim_end_matches("\r\n").split("\r\n").collect();
    for line in &lines {
        let (code, mark) = (line.get(..3), line.as_bytes().get(3));
        assert!(code.is_some_and(|code| code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code))), "{line}");
        assert!(matches!(mark, Some(b' ' | b'-')) && !line.contains(char::is_control), "{line:?}");
        assert!(line.len() <= 510, "RFC 5321, section 4.5.3.1.5: {line}");
    }
    assert_eq!(kept.len(), lines.iter().filter(|line| line.ends_with("caught")).count());
    for mail in &kept {
        assert!(mail.raw.len() <= LARGEST_MESSAGE && mail.raw.len() <= bytes.len());
        assert!((1..=100).contains(&mail.to.len()));
        assert!(mail.to.iter().chain([&mail.from]).all(|address| !address.contains(char::is_control)));
        assert!(mail.raw.is_empty() || mail.raw.ends_with(b"\r\n"));
    }
}
