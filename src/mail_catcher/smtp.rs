//! The SMTP side: sockets, lines and time.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Fate, Mailbox,
    session::{Answer, LARGEST_MESSAGE, Session},
};

/// Sessions at the same time; one more is told to come later.
const MOST_SESSIONS: usize = 256;
/// RFC 5321, section 4.5.3.2.7.
const IDLE: Duration = Duration::from_secs(300);
/// RFC 5321, sections 4.5.3.1.4 and 4.5.3.1.6, CR LF included; a dot of transport is not counted.
const LONGEST_COMMAND: usize = 512;
const LONGEST_LINE: usize = 1000;

/// Takes connections until told to stop, then lets none go on.
pub(super) async fn serve(listener: TcpListener, mailbox: Arc<Mailbox>, stop: CancellationToken) {
    let (places, sessions) = (Arc::new(Semaphore::new(MOST_SESSIONS)), TaskTracker::new());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((mut stream, _)) = accepted else {
            // Out of file descriptors, mostly: at once, it would fail again at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let _ = stream.try_write(b"421 4.3.2 too many connections\r\n");
            let _ = stream.shutdown().await;
            continue;
        };
        let (mailbox, stop) = (Arc::clone(&mailbox), stop.clone());
        sessions.spawn(async move {
            // A connection that breaks is its client's affair.
            let (read, write) = stream.into_split();
            let _ = stop.run_until_cancelled(converse(read, write, &mailbox, IDLE)).await;
            drop(place);
        });
    }
    sessions.close();
    sessions.wait().await;
}

/// What the server answers to everything that a client says at once, without a socket.
pub(super) async fn answers(said: &[u8], mailbox: &Mailbox) -> Vec<u8> {
    let mut answers = Vec::new();
    // Reading and writing memory does not fail.
    let _ = converse(said, &mut answers, mailbox, IDLE).await;
    answers
}

/// One connection from greeting to good-bye.
async fn converse(
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    mailbox: &Mailbox,
    idle: Duration,
) -> io::Result<()> {
    let (mut read, mut session) = (BufReader::new(read), Session::default());
    say(&mut write, "220 tolom mail catcher ESMTP").await?;
    loop {
        let Ok(line) = timeout(idle, read_line(&mut read, LONGEST_COMMAND)).await else {
            return say(&mut write, "421 4.4.2 you have been silent for too long").await;
        };
        let answer = match line? {
            Line::Whole(line) => session.command(&line, |verb, address| mailbox.refusal(verb, address)),
            Line::Bad => session.bad_line(),
            Line::End => return Ok(()),
        };
        match answer {
            Answer::Reply(text) => say(&mut write, &text).await?,
            Answer::Close(text) => return say(&mut write, &text).await,
            Answer::Data(text) => {
                say(&mut write, &text).await?;
                let Ok(data) = timeout(idle, read_data(&mut read)).await else {
                    return say(&mut write, "421 4.4.2 that took too long").await;
                };
                let (from, to) = session.take_envelope();
                match data? {
                    Data::Message(raw) => match mailbox.take_in(from, to, raw) {
                        Fate::Keep(wait) => {
                            tokio::time::sleep(wait).await;
                            say(&mut write, "250 2.0.0 caught").await?;
                        }
                        Fate::Busy => say(&mut write, "451 4.3.0 busy, come again").await?,
                        Fate::HangUpBeforeReply => return Ok(()),
                        Fate::HangUpAfterReply => return say(&mut write, "250 2.0.0 caught").await,
                        Fate::Stall => std::future::pending().await,
                    },
                    Data::TooLarge => say(&mut write, "552 5.3.4 the message is too large").await?,
                    Data::BadLine => say(&mut write, "554 5.6.0 a line is too long or has a bare CR or LF").await?,
                    Data::End => return Ok(()),
                }
            }
        }
    }
}

async fn say(write: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    write.write_all(format!("{text}\r\n").as_bytes()).await?;
    write.flush().await
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// Without its CR LF.
    Whole(Vec<u8>),
    /// Too long, or with a bare CR or LF; read to its LF.
    Bad,
    End,
}

#[derive(Debug, PartialEq, Eq)]
enum Data {
    Message(Vec<u8>),
    TooLarge,
    BadLine,
    End,
}

/// Reads to the next LF, keeping at most `longest` octets of what comes before it.
async fn read_line(read: &mut (impl AsyncBufRead + Unpin), longest: usize) -> io::Result<Line> {
    let (mut line, mut fits) = (Vec::new(), true);
    loop {
        let buffer = read.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(Line::End);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |end| end + 1);
        fits &= line.len() + taken <= longest;
        if fits {
            line.extend_from_slice(&buffer[..taken]);
        }
        read.consume(taken);
        if end.is_some() {
            break;
        }
    }
    match line.strip_suffix(b"\r\n") {
        Some(whole) if fits && !whole.contains(&b'\r') => Ok(Line::Whole(whole.to_vec())),
        _ => Ok(Line::Bad),
    }
}

/// Reads a message to its dot, always to its end, whatever is wrong with it: only CR LF . CR LF ends one, or a
/// message could smuggle in a second (RFC 5321, section 4.1.1.4).
async fn read_data(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Data> {
    let (mut message, mut too_large, mut bad_line) = (Vec::new(), false, false);
    loop {
        let line = match read_line(read, LONGEST_LINE + 1).await? {
            Line::End => return Ok(Data::End),
            Line::Bad => {
                bad_line = true;
                continue;
            }
            Line::Whole(line) if line == b"." => break,
            Line::Whole(line) => line,
        };
        let line = line.strip_prefix(b".").unwrap_or(&line);
        bad_line |= line.len() + 2 > LONGEST_LINE;
        too_large |= message.len() + line.len() + 2 > LARGEST_MESSAGE;
        if !too_large {
            message.extend_from_slice(line);
            message.extend_from_slice(b"\r\n");
        }
    }
    Ok(match (bad_line, too_large) {
        (true, _) => Data::BadLine,
        (false, true) => Data::TooLarge,
        (false, false) => Data::Message(message),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{io::AsyncReadExt, net::TcpStream};

    use super::*;

    async fn data(bytes: &[u8]) -> Data {
        read_data(&mut &bytes[..]).await.unwrap()
    }

    /// Talks to a new server: sends everything at once, and returns what it said until it hung up.
    async fn talk(mailbox: &Arc<Mailbox>, said: &[u8], idle: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(said).await.unwrap();
        let mut heard = String::new();
        let (read, write) = server.into_split();
        let (server, client) = tokio::join!(converse(read, write, mailbox, idle), client.read_to_string(&mut heard));
        server.unwrap();
        client.unwrap();
        heard
    }

    #[tokio::test]
    async fn a_message_ends_at_its_dot_and_nowhere_else() {
        assert_eq!(data(b"a\r\n..b\r\n\r\n.\r\n").await, Data::Message(b"a\r\n.b\r\n\r\n".to_vec()));
        assert_eq!(data(b".\r\n").await, Data::Message(Vec::new()));
        for smuggled in ["a\n.\r\nb\r\n.\r\n", "a\r\n.\nb\r\n.\r\n", "a\r.\r\nb\r\n.\r\n", "a\n.\nb\r\n.\r\n"] {
            assert_eq!(data(smuggled.as_bytes()).await, Data::BadLine, "{smuggled:?}");
        }
        assert_eq!(data(b"a\r\n.").await, Data::End);
    }

    #[tokio::test]
    async fn lines_and_messages_have_limits() {
        let line = |octets: usize| format!("{}\r\n", "a".repeat(octets - 2));
        assert!(matches!(data(format!("{}.\r\n", line(1000)).as_bytes()).await, Data::Message(_)));
        assert!(matches!(data(format!(".{}.\r\n", line(1000)).as_bytes()).await, Data::Message(_)));
        assert_eq!(data(format!("{}.\r\n", line(1001)).as_bytes()).await, Data::BadLine);
        assert_eq!(data(format!("{}.\r\n", line(3_000_000)).as_bytes()).await, Data::BadLine);
        let full = line(1000).repeat(1048) + &line(576);
        assert!(matches!(data(format!("{full}.\r\n").as_bytes()).await, Data::Message(_)));
        assert_eq!(data(format!("{full}\r\n.\r\n").as_bytes()).await, Data::TooLarge);
    }

    #[tokio::test]
    async fn commands_may_be_sent_all_at_once() {
        let mailbox = Mailbox::new();
        let said = "EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nNOOP\n\
                    MAIL FROM:<a@b.example>\r\nRSET\r\nQUIT\r\n";
        let heard = talk(&mailbox, said.as_bytes(), IDLE).await;
        let codes: Vec<&str> = heard.lines().filter(|line| !line.starts_with("250-")).map(|line| &line[..3]).collect();
        assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "500", "250", "250", "221"]);
        let caught = mailbox.messages();
        assert_eq!((caught.len(), caught[0].from.as_str(), caught[0].subject.as_str()), (1, "a@b.example", "x"));
    }

    #[tokio::test]
    async fn a_silent_client_is_sent_away() {
        let idle = Duration::from_millis(50);
        assert!(talk(&Mailbox::new(), b"EHLO me\r\n", idle).await.contains("421 4.4.2"));
        let in_data = b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n";
        assert!(talk(&Mailbox::new(), in_data, idle).await.contains("421 4.4.2"));
    }

    proptest! {
        #[test]
        fn what_is_stuffed_comes_out_as_it_went_in(lines in proptest::collection::vec("[.a-z ]{0,8}", 0..9)) {
            let sent: String = lines.iter().map(|line| {
                let dot = if line.starts_with('.') { "." } else { "" };
                format!("{dot}{line}\r\n")
            }).collect();
            let kept: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(data(format!("{sent}.\r\n").as_bytes())), Data::Message(kept.into_bytes()));
        }
    }
}
