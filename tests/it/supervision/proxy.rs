//! A proxy before the broker that leaves a connection alive and has it hear no delivery any more.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tolom::config;
use url::Url;

/// Type, channel and size stand before the payload, one octet after it (AMQP 0-9-1, 2.3.5).
const HEADER: usize = 7;

#[derive(Clone)]
pub(super) struct Proxy {
    url: String,
    /// Connections ever.
    opened: Arc<AtomicUsize>,
    /// Those before this one hear nothing on their first channel.
    deaf_before: Arc<AtomicUsize>,
    /// A permit for each frame that was kept from them.
    withheld: Arc<Semaphore>,
    /// Ends every connection.
    cut: CancellationToken,
}

impl Proxy {
    /// A proxy before the broker of these settings.
    pub(super) async fn before(settings: &config::Broker) -> Self {
        Self::at("127.0.0.1:0", settings).await
    }

    /// The same at this address.
    pub(super) async fn at(address: &str, settings: &config::Broker) -> Self {
        let mut url = Url::parse(settings.url.expose()).unwrap();
        let broker = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind(address).await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let proxy = Self {
            url: url.into(),
            opened: Arc::default(),
            deaf_before: Arc::default(),
            withheld: Arc::new(Semaphore::new(0)),
            cut: CancellationToken::new(),
        };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&broker).await.unwrap();
                let number = serving.opened.fetch_add(1, Ordering::SeqCst);
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let (proxy, cut) = (serving.clone(), serving.cut.clone());
                tokio::spawn(async move {
                    cut.run_until_cancelled(tokio::io::copy(&mut from_client, &mut to_server)).await;
                });
                // Ends with either side.
                tokio::spawn(async move {
                    proxy.cut.run_until_cancelled(proxy.pass(number, from_server, to_client)).await;
                });
            }
        });
        proxy
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on the connections that are open hear nothing on their first channel, where deliveries come.
    pub(super) fn deafen(&self) {
        self.deaf_before.store(self.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Waits until something has been kept from them.
    pub(super) async fn withheld(&self) {
        self.withheld.acquire().await.unwrap().forget();
    }

    /// Ends the connections, as a network does that is cut.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    async fn pass(
        &self,
        number: usize,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
    ) -> std::io::Result<()> {
        loop {
            let mut frame = vec![0; HEADER];
            from.read_exact(&mut frame).await?;
            let channel = u16::from_be_bytes([frame[1], frame[2]]);
            let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
            frame.resize(HEADER + usize::try_from(size).unwrap() + 1, 0);
            from.read_exact(&mut frame[HEADER..]).await?;
            if channel != 1 || number >= self.deaf_before.load(Ordering::SeqCst) {
                to.write_all(&frame).await?;
            } else {
                self.withheld.add_permits(1);
            }
        }
    }
}
