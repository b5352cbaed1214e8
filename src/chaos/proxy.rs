//! The TCP proxy between a pair, which can do to their connections what networks do.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use crate::services::free_ports;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 512;
const BUFFER: usize = 16 * 1024;
/// What a throttled connection passes at a time.
const SIP: usize = 256;
/// How often a port of ours that is taken is asked for again.
const REBIND_EVERY: Duration = Duration::from_millis(50);

/// What happens to connections now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everything passes.
    Pass,
    /// Connections are reset and new ones refused.
    Cut,
    /// Every piece of data is held back for so long.
    Delay(Duration),
    /// So many bytes a second.
    Throttle(u32),
    /// Accepted, and nothing passes; what was sent passes afterwards.
    BlackHole,
    /// What the near end sends passes; what the far end answers does so only afterwards.
    AnswersLost,
    /// The far end is gone, and the near end is told only afterwards.
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToFar,
    ToNear,
}

impl Mode {
    fn is_silent(self, direction: Direction) -> bool {
        self == Self::BlackHole || self == Self::AnswersLost && direction == Direction::ToNear
    }

    /// How long a piece of so many bytes is held back.
    fn holds(self, bytes: usize) -> Duration {
        match self {
            Self::Delay(time) => time,
            Self::Throttle(rate) => Duration::from_secs_f64(bytes as f64 / f64::from(rate.max(1))),
            _ => Duration::ZERO,
        }
    }
}

/// A proxy before one address. Dropped, it resets what it carries.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _running: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface and passes on to `far`.
    pub(super) async fn start(far: SocketAddr) -> io::Result<Self> {
        let (listener, address) = listen_anywhere().await?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let running = AbortOnDropHandle::new(tokio::spawn(serve(listener, address, far, modes)));
        Ok(Self { address, mode, _running: running })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens, to open connections too.
    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Not a port that the system gives away: one that is refused for a while has to be free afterwards.
async fn listen_anywhere() -> io::Result<(TcpListener, SocketAddr)> {
    loop {
        let [port] = free_ports()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok((listener, address)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

async fn serve(listener: TcpListener, address: SocketAddr, far: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut lines = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        if *modes.borrow_and_update() == Mode::Cut {
            listener = None;
            if modes.wait_for(|mode| *mode != Mode::Cut).await.is_err() {
                return;
            }
        }
        let listening = match listener.take() {
            Some(listening) => listening,
            None => match TcpListener::bind(address).await {
                Ok(listening) => listening,
                Err(error) => {
                    tracing::warn!(%address, %error, "a proxy's port is taken");
                    sleep(REBIND_EVERY).await;
                    continue;
                }
            },
        };
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            (place, near) = accept(&listening, &places) => {
                let modes = modes.clone();
                lines.spawn(async move {
                    carry(near, far, modes).await;
                    drop(place);
                });
            }
            Some(_) = lines.join_next() => {}
        }
        listener = Some(listening);
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, TcpStream) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((near, _)) => return (place, near),
            // Out of file descriptors, most likely: give the open connections time to end.
            Err(_) => sleep(REBIND_EVERY).await,
        }
    }
}

/// One connection, to its end.
async fn carry(mut near: TcpStream, far: SocketAddr, mut modes: watch::Receiver<Mode>) {
    if modes.wait_for(|mode| *mode != Mode::BlackHole).await.is_err() {
        return;
    }
    if *modes.borrow() == Mode::HalfOpen {
        return unheard(&mut near, &mut modes).await;
    }
    let Ok(mut server) = TcpStream::connect(far).await else { return reset(&near) };
    // What is measured here are delays of ours, not Nagle's.
    let _ = (near.set_nodelay(true), server.set_nodelay(true));
    let broken = {
        let (mut from_near, mut to_near) = near.split();
        let (mut from_far, mut to_far) = server.split();
        let up = pump(&mut from_near, &mut to_far, Direction::ToFar, modes.clone());
        let down = pump(&mut from_far, &mut to_near, Direction::ToNear, modes.clone());
        tokio::select! {
            ended = async { tokio::try_join!(up, down) } => if ended.is_ok() { return } else { Mode::Cut },
            mode = breaking(&mut modes) => mode,
        }
    };
    reset(&server);
    drop(server);
    if broken == Mode::HalfOpen {
        return unheard(&mut near, &mut modes).await;
    }
    reset(&near);
}

/// Waits until connections are to be broken.
async fn breaking(modes: &mut watch::Receiver<Mode>) -> Mode {
    match modes.wait_for(|mode| matches!(mode, Mode::Cut | Mode::HalfOpen)).await {
        Ok(mode) => *mode,
        Err(_) => Mode::Cut,
    }
}

/// Takes what the near end sends, and answers nothing; afterwards it is told that the connection is no more.
async fn unheard(near: &mut TcpStream, modes: &mut watch::Receiver<Mode>) {
    let swallow = async {
        let mut buffer = vec![0; BUFFER];
        while near.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = swallow => {}
        _ = modes.wait_for(|mode| *mode != Mode::HalfOpen) => {}
    }
    reset(near);
}

/// When it is dropped, a RST goes out instead of a FIN.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Passes on one direction until its end.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    direction: Direction,
    mut modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mode = *modes.borrow_and_update();
        if mode.is_silent(direction) {
            modes.changed().await.map_err(io::Error::other)?;
            continue;
        }
        let room = if matches!(mode, Mode::Throttle(_)) { SIP } else { BUFFER };
        let read = tokio::select! {
            read = from.read(&mut buffer[..room]) => read?,
            changed = modes.changed() => {
                changed.map_err(io::Error::other)?;
                continue;
            }
        };
        if read == 0 {
            return to.shutdown().await;
        }
        sleep(mode.holds(read)).await;
        // A silence that has begun meanwhile is for these bytes too.
        modes.wait_for(|mode| !mode.is_silent(direction)).await.map_err(io::Error::other)?;
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const SILENCE: Duration = Duration::from_millis(150);

    /// A far end that sends everything back, and a proxy before it.
    async fn echo() -> (Proxy, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (Proxy::start(far).await.unwrap(), AbortOnDropHandle::new(serving))
    }

    async fn heard(stream: &mut TcpStream, bytes: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        timeout(SOON, stream.read_exact(&mut buffer)).await.expect("an answer or an error in time")?;
        Ok(buffer)
    }

    #[tokio::test]
    async fn everything_passes_both_ways_and_so_does_the_end() {
        let (proxy, _far) = echo().await;
        let mut near = TcpStream::connect(proxy.address()).await.unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (mut from, mut to) = near.split();
        let (sending, hearing) = tokio::join!(
            async {
                to.write_all(&sent).await?;
                to.shutdown().await
            },
            async {
                let mut all = Vec::new();
                from.read_to_end(&mut all).await.map(|_| all)
            }
        );
        sending.unwrap();
        assert_eq!(hearing.unwrap(), sent);
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_refuses_what_is_new_until_it_is_over() {
        let (proxy, _far) = echo().await;
        let mut near = TcpStream::connect(proxy.address()).await.unwrap();
        near.write_all(b"x").await.unwrap();
        heard(&mut near, 1).await.unwrap();
        proxy.set(Mode::Cut);
        assert_eq!(heard(&mut near, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(TcpStream::connect(proxy.address()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        proxy.set(Mode::Pass);
        let again = async {
            loop {
                if let Ok(near) = TcpStream::connect(proxy.address()).await {
                    return near;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut near = timeout(SOON, again).await.unwrap();
        near.write_all(b"y").await.unwrap();
        assert_eq!(heard(&mut near, 1).await.unwrap(), b"y");
    }

    #[tokio::test]
    async fn silences_hold_back_and_lose_nothing() {
        for mode in [Mode::BlackHole, Mode::AnswersLost] {
            let (proxy, _far) = echo().await;
            let mut near = TcpStream::connect(proxy.address()).await.unwrap();
            near.write_all(b"a").await.unwrap();
            heard(&mut near, 1).await.unwrap();
            proxy.set(mode);
            near.write_all(b"b").await.unwrap();
            let mut fresh = TcpStream::connect(proxy.address()).await.unwrap();
            fresh.write_all(b"c").await.unwrap();
            let (mut one, mut other) = ([0], [0]);
            assert!(timeout(SILENCE, near.read(&mut one)).await.is_err(), "{mode:?} is silent");
            assert!(timeout(SILENCE, fresh.read(&mut other)).await.is_err(), "{mode:?} is silent");
            proxy.set(Mode::Pass);
            assert_eq!(heard(&mut near, 1).await.unwrap(), b"b");
            assert_eq!(heard(&mut fresh, 1).await.unwrap(), b"c");
        }
    }

    #[tokio::test]
    async fn half_open_the_near_end_hears_nothing_and_then_that_it_is_over() {
        let (proxy, _far) = echo().await;
        let mut near = TcpStream::connect(proxy.address()).await.unwrap();
        near.write_all(b"a").await.unwrap();
        heard(&mut near, 1).await.unwrap();
        proxy.set(Mode::HalfOpen);
        near.write_all(b"b").await.unwrap();
        assert!(timeout(SILENCE, near.read(&mut [0])).await.is_err(), "silent");
        proxy.set(Mode::Pass);
        assert_eq!(heard(&mut near, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn delays_and_throttles_take_their_time() {
        for (mode, least_ms) in [(Mode::Delay(Duration::from_millis(100)), 200), (Mode::Throttle(5_000), 200)] {
            let (proxy, _far) = echo().await;
            proxy.set(mode);
            let mut near = TcpStream::connect(proxy.address()).await.unwrap();
            let began = Instant::now();
            near.write_all(&[7; 1_024]).await.unwrap();
            assert_eq!(heard(&mut near, 1_024).await.unwrap(), [7; 1_024]);
            assert!(began.elapsed() >= Duration::from_millis(least_ms), "{mode:?}: {:?}", began.elapsed());
        }
    }
}
