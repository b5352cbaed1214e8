//! One server of ours, to be broken and mended.

use std::{ffi::OsString, io};

use super::{Server, ServicesError, instance::Instance, process::Launch};

/// A server that was started for us; what befalls it befalls nobody else.
#[derive(Debug)]
pub struct Own<'a>(&'a mut Instance);

impl<'a> Own<'a> {
    pub(super) fn of(instance: &'a mut Option<Instance>, server: Server) -> Result<Self, ServicesError> {
        instance.as_mut().map(Self).ok_or(ServicesError::NotOurs(server))
    }

    /// Ends it as a power cut would; its data stays.
    pub fn crash(&mut self) {
        self.0.crash();
    }

    /// Shuts it down in order; its data stays.
    pub async fn shut_down(&mut self) {
        let process = self.0.take_process();
        // A panic in there has been reported, and leaves nothing to be done here.
        let _ = tokio::task::spawn_blocking(move || drop(process)).await;
    }

    /// Starts it again, on the same port and data, and waits until it serves.
    pub async fn start_again(&mut self) -> Result<(), ServicesError> {
        if self.0.process.is_some() { Ok(()) } else { self.0.start().await }
    }

    /// Runs the broker's own `rabbitmqctl` against it; it gives up by itself after half a minute.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> io::Result<()> {
        let launch = &self.0.launch;
        let mut args: Vec<OsString> = vec!["--quiet".into(), "--timeout".into(), "30".into()];
        args.extend(arguments.iter().map(OsString::from));
        let command = Launch { program: launch.program.with_file_name("rabbitmqctl"), args, ..launch.clone() };
        let done = tokio::task::spawn_blocking(move || command.run()).await.map_err(io::Error::other)??;
        if done { Ok(()) } else { Err(io::Error::other(format!("rabbitmqctl {} failed", arguments.join(" ")))) }
    }
}
