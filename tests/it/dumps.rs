//! Rule 7 when a process crashes: what was in its memory is written nowhere, and nobody may look into it.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
};

use tokio::net::TcpStream;

use crate::{processes::free_address, support::world::wait_for};

/// Some user that is not root: as root every process looks the same.
const NOBODY: u32 = 65_534;

/// A worker that has started; neither its database nor its broker is there.
struct Worker(Child);

impl Worker {
    async fn start(name: &str, keys: &str) -> Self {
        let admin = free_address();
        let settings = [
            "database.url=postgres://127.0.0.1:1/none".to_owned(),
            "broker.url=amqp://127.0.0.1:1/%2f".to_owned(),
            format!("admin.listen={admin}"),
            format!("sealing.keys_dir={keys}"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_tolom"));
        command.args(["worker", name]).args(settings.iter().flat_map(|setting| ["--set", setting]));
        if rustix::process::getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let silent = command.env("TOLOM_LOG__FILTER", "off").current_dir(std::env::temp_dir()).stdout(Stdio::null());
        let worker = Self(silent.spawn().unwrap());
        wait_for(async || TcpStream::connect(&admin).await.ok()).await;
        worker
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn no_process_dumps_its_memory_and_only_root_may_look_into_the_one_that_opens_cards() {
    let keys = std::env::temp_dir().join(format!("tolom-no-keys-{}", uuid::Uuid::new_v4()));
    for (name, shut) in [("authorize", true), ("record", false)] {
        let worker = Worker::start(name, keys.to_str().unwrap()).await;
        let limits = fs::read_to_string(worker.file("limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"], "{name}: now, and at most");
        // The files of a process that must not be dumped belong to root (proc(5)).
        let owner = fs::metadata(worker.file("mem")).unwrap().uid();
        assert_eq!(owner == 0, shut, "{name}");
    }
    let _ = fs::remove_dir_all(keys);
}
