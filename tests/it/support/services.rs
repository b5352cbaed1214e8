//! PostgreSQL and RabbitMQ for the whole test process: given, running, or started.

use std::path::Path;

use tokio::sync::OnceCell;
use tolom::services::{Services, Wanted};

static SERVICES: OnceCell<Services> = OnceCell::const_new();

/// The servers. Private ones die with this process.
pub(crate) async fn services() -> &'static Services {
    SERVICES
        .get_or_init(|| async {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services");
            Services::ensure(&Wanted::from_env(directory), |step| eprintln!("{step}"))
                .await
                .unwrap_or_else(|error| panic!("no servers to test against: {error}"))
        })
        .await
}
