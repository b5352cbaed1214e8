//! Where everything listens: the usual ports, or any that are free.

use tokio::net::TcpListener;

use crate::{config::Config, services::free_ports, workers};

/// One listener for each that serves; taken at once, so that nobody else gets their ports.
pub(super) struct Listeners {
    pub(super) intake: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) simulator: TcpListener,
}

/// Where mail and short messages are caught.
pub(super) struct Post {
    pub(super) smtp: TcpListener,
    pub(super) view: TcpListener,
}

impl Listeners {
    /// Takes the usual ports, or any that are free, and writes into the settings what was taken.
    pub(super) async fn take(config: &mut Config) -> anyhow::Result<Self> {
        let listeners = Self {
            intake: listen(&config.intake.listen).await?,
            admin: listen(&config.admin.listen).await?,
            simulator: listen(&config.simulator.listen).await?,
        };
        config.intake.listen = listeners.intake.local_addr()?.to_string();
        config.admin.listen = listeners.admin.local_addr()?.to_string();
        config.simulator.listen = listeners.simulator.local_addr()?.to_string();
        address_each_other(config);
        Ok(listeners)
    }
}

impl Post {
    pub(super) async fn take(config: &mut Config, short_messages: bool) -> anyhow::Result<Self> {
        let post = Self { smtp: listen("127.0.0.1:1025").await?, view: listen("127.0.0.1:8025").await? };
        config.mail.url = format!("smtp://{}", post.smtp.local_addr()?).into();
        if short_messages {
            config.sms.url = format!("http://{}/sms", post.view.local_addr()?);
        }
        Ok(post)
    }
}

/// Free ports for the intake and the simulator, written into the settings, and one for each role's operators.
pub(super) fn take_ports(config: &mut Config) -> anyhow::Result<Vec<u16>> {
    // The intake's and the simulator's own, and the operators' of the intake and of every worker.
    const COUNT: usize = 2 + 1 + workers::ALL.len();
    let [intake, simulator, admins @ ..] = free_ports::<COUNT>()?;
    config.intake.listen = format!("127.0.0.1:{intake}");
    config.simulator.listen = format!("127.0.0.1:{simulator}");
    config.admin.listen = format!("127.0.0.1:{}", admins[0]);
    address_each_other(config);
    Ok(admins.to_vec())
}

fn address_each_other(config: &mut Config) {
    config.intake.public_url = format!("http://{}", config.intake.listen);
    config.acquirer.url = format!("http://{}", config.simulator.listen);
    config.acquirer.token = String::new().into();
}

/// Listens here, or on a free port of the loopback interface.
async fn listen(preferred: &str) -> std::io::Result<TcpListener> {
    match TcpListener::bind(preferred).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind("127.0.0.1:0").await,
    }
}
