//! What the processes of a run have used, from `/proc`.

use std::{collections::HashMap, fs, net::IpAddr};

use url::{Host, Url};

/// A part of the pipeline, or a server beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A process alone.
    Process(u32),
    /// A process and all that it has started: a server with its helpers.
    Tree(u32),
}

/// What a part has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Milliseconds on a processor since it began, those of ended children of a tree included.
    pub(super) cpu_ms: f64,
    /// Megabytes in memory. What the processes of a tree share counts once.
    pub(super) memory_mb: f64,
    /// The most it ever had; of a tree, its first process.
    pub(super) peak_mb: f64,
}

#[derive(Debug, Clone, Copy)]
struct Stat {
    parent: u32,
    own: u64,
    children: u64,
}

/// All processes at a moment.
pub(super) struct Processes {
    stats: HashMap<u32, Stat>,
    busy_ticks: u64,
}

impl Processes {
    /// Looks at all of them; what cannot be seen is not there.
    pub(super) fn look() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let stats = pids.filter_map(|pid| Some((pid, stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)));
        Self { stats: stats.collect(), busy_ticks: busy(&fs::read_to_string("/proc/stat").unwrap_or_default()) }
    }

    /// Milliseconds that the processors have worked for anybody.
    pub(super) fn busy_ms(&self) -> f64 {
        millis(self.busy_ticks)
    }

    /// What a part has used; none if it is gone.
    pub(super) fn usage(&self, part: Part) -> Option<Usage> {
        let (root, pids) = match part {
            Part::Process(pid) => (pid, vec![pid]),
            Part::Tree(pid) => (pid, self.tree(pid)),
        };
        self.stats.get(&root)?;
        let mut ticks = 0;
        for stat in pids.iter().filter_map(|pid| self.stats.get(pid)) {
            ticks += stat.own + if matches!(part, Part::Tree(_)) { stat.children } else { 0 };
        }
        let memories: Vec<Memory> = pids.iter().filter_map(|pid| Memory::of(*pid)).collect();
        let most = |what: fn(&Memory) -> u64| memories.iter().map(what).max().unwrap_or(0);
        let private: u64 = memories.iter().map(|memory| memory.anonymous).sum();
        let memory = private + most(|memory| memory.file) + most(|memory| memory.shared);
        let peak = Memory::of(root).map_or(0, |memory| memory.peak);
        Some(Usage { cpu_ms: millis(ticks), memory_mb: megabytes(memory), peak_mb: megabytes(peak) })
    }

    fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree = vec![root];
        let mut seen = 0;
        while seen < tree.len() {
            let parent = tree[seen];
            tree.extend(self.stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
            seen += 1;
        }
        tree
    }

    /// Who listens on a port of this machine's loopback interface, if that is where the address leads.
    pub(super) fn listener(&self, url: &str, default_port: u16) -> Option<u32> {
        let url = Url::parse(url).ok()?;
        let here = match url.host()? {
            Host::Domain(name) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let port = url.port().unwrap_or(default_port);
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
        let sockets: Vec<String> = tables.iter().flat_map(|table| listening(table, port)).collect();
        let holders: Vec<u32> = self.stats.keys().copied().filter(|pid| holds(*pid, &sockets)).collect();
        let first = holders.iter().find(|pid| !holders.contains(&self.stats[pid].parent));
        here.then_some(())?;
        first.copied()
    }
}

/// proc(5): the fields behind the name, which may hold anything, are the parent (4th) and the times (14th to 17th).
fn stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        own: number(14)? + number(15)?,
        children: number(16)? + number(17)?,
    })
}

/// All ticks but those of idling and waiting for a disk (4th and 5th), and of guests, which are counted twice.
fn busy(text: &str) -> u64 {
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
    ticks.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, tick)| tick).sum()
}

/// Kilobytes.
struct Memory {
    anonymous: u64,
    file: u64,
    shared: u64,
    peak: u64,
}

impl Memory {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Some(Self {
            anonymous: field("RssAnon"),
            file: field("RssFile"),
            shared: field("RssShmem"),
            peak: field("VmHWM"),
        })
    }
}

/// The sockets that listen on a port: state `0A`, local address in hexadecimal (kernel: `proc_net_tcp`).
fn listening(table: &str, port: u16) -> impl Iterator<Item = String> {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let listens = fields.get(3) == Some(&"0A") && u16::from_str_radix(local, 16) == Ok(port);
        listens.then(|| format!("socket:[{}]", fields.get(9).copied().unwrap_or_default()))
    })
}

fn holds(pid: u32, sockets: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.into_iter().any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
}

fn millis(ticks: u64) -> f64 {
    ticks as f64 * 1e3 / rustix::param::clock_ticks_per_second() as f64
}

fn megabytes(kilobytes: u64) -> f64 {
    (kilobytes as f64 / 102.4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 0 0 11 13 17 19 20 0 1 0 5 6 7";
        let Stat { parent, own, children } = stat(line).unwrap();
        assert_eq!((parent, own, children), (3, 24, 36));
        assert!(stat("7 (a) S 3").is_none());
    }

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let table = "head\n 0: 0100007F:1538 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n \
                     1: 0100007F:1538 0100007F:9999 01 0:0 0:0 0 0 0 4712 1\n";
        assert_eq!(listening(table, 0x1538).collect::<Vec<_>>(), ["socket:[4711]"]);
        assert_eq!(listening(table, 0x1539).count(), 0);
    }

    #[test]
    fn this_process_is_there_and_listens_where_it_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let processes = Processes::look();
        assert_eq!(processes.listener(&url, 0), Some(std::process::id()));
        let usage = processes.usage(Part::Process(std::process::id())).unwrap();
        assert!(usage.memory_mb > 0.0 && usage.peak_mb >= usage.memory_mb - 1.0, "{usage:?}");
        assert!(processes.busy_ms() > 0.0);
    }
}
