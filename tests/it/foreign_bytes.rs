//! Every parser of bytes from outside holds what `fuzz/src` says of it: over its whole corpus, over changed seeds, and
//! over 64 KiB of what parsers are slow at. `cargo fuzz` looks further; what it has found is in the corpus.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant},
};

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "of the fuzz crate it is the library, and there they are reachable")]
mod targets;

/// Changed seeds a target; a debug build does some ten thousand a second.
const ROUNDS: u64 = 1_500;
/// The largest body that the intake and the acquirer's adapter read.
const LARGE: usize = 64 * 1024;
/// Far more than a debug build needs for it; a parser that is quadratic needs more.
const SOON: Duration = Duration::from_secs(4);

macro_rules! targets {
    ($($target:ident)*) => {
        /// The names, which are those of the folders in `fuzz/corpus` and of the binaries in `fuzz/fuzz_targets`.
        const NAMES: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                hold(stringify!($target), targets::$target::target);
            }
        )*
    };
}

targets! {
    acquirer_answers acquirer_books amounts_and_codes amqp_properties bills_csv cards events headers intake_bodies jwe
    masks smtp sse
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn names_in(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn each_target_has_a_corpus_and_a_binary_of_its_own() {
    assert_eq!(names_in(&folder("corpus")), NAMES);
    assert_eq!(names_in(&folder("fuzz_targets")), NAMES);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in NAMES {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} in fuzz/Cargo.toml");
    }
}

/// Holds a target to all its seeds, to changed ones, and to large inputs within time.
fn hold(name: &str, target: fn(&[u8])) {
    let folder = folder("corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The order of a folder is the file system's, and a seed must give the same inputs everywhere.
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(seeds.len() > 1, "{name} has a corpus");
    for (file, seed) in files.iter().zip(&seeds) {
        run(target, seed, || file.display().to_string());
    }
    for round in 0..ROUNDS {
        let input = Dice::new(round).change(&seeds);
        run(target, &input, || format!("{name}, round {round}: {}", input.escape_ascii()));
    }
    for (what, input) in large(&seeds) {
        let began = time_spent();
        run(target, &input, || format!("{name}, large: {what}"));
        let took = time_spent() - began;
        assert!(took < SOON, "{name} took {took:?} for 64 KiB of {what}");
    }
}

/// How long this thread has run: other tests must not make it look slow. Elsewhere than on Linux, how long it has been.
fn time_spent() -> Duration {
    static SINCE: LazyLock<Instant> = LazyLock::new(Instant::now);
    let spent = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = spent.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| SINCE.elapsed(), Duration::from_nanos)
}

/// Runs a target, and says what it was given if it panics.
fn run(target: fn(&[u8]), input: &[u8], what: impl Fn() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("given {}", what());
        resume_unwind(panic);
    }
}

/// What nests, what repeats, and what never ends.
fn large(seeds: &[Vec<u8>]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let pieces: Vec<Vec<u8>> =
        [b"a" as &[u8], b"0", b"\n", b"\r\n", b" ", b"\"", b"[", b"{\"a\":", b",", b";", b".", b"=", b"\0", b"\xff"]
            .map(<[u8]>::to_vec)
            .into();
    pieces.into_iter().chain(seeds.to_vec()).filter(|piece| !piece.is_empty()).flat_map(|piece| {
        let repeated: Vec<u8> = piece.iter().copied().cycle().take(LARGE).collect();
        // And with something before it that lets the parser in.
        let what = format!("{:.60}", piece.escape_ascii().to_string());
        [(what.clone(), repeated.clone()), (format!("itself and then {what}"), [piece, b"a".repeat(LARGE)].concat())]
    })
}

/// A stream of numbers that a round decides (xorshift*, Vigna 2016).
struct Dice(u64);

impl Dice {
    const fn new(round: u64) -> Self {
        Self((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let limit = limit.max(1) as u64;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// A seed with one to four changes.
    fn change(mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        const ODD: [&[u8]; 18] = [
            b"",
            b"\0",
            b"\n",
            b"\r\n",
            b"\"",
            b"\\",
            b",",
            b"null",
            b"-1",
            b"9223372036854775808",
            b"1e999",
            b"\xf0\x9f\x92\xb3",
            b"\xff",
            b"4111111111111111",
            b"\\u0000",
            b"0001-01-01T00:00:00+23:59",
            b"9999-12-31T23:59:59-23:59",
            b"\x1b[2J",
        ];
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let (one, other) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let range = one.min(other)..one.max(other).min(one.min(other) + 1 + self.below(40));
            match self.below(7) {
                0 => bytes.truncate(one),
                1 => drop(bytes.splice(range, self.pick(&ODD).iter().copied())),
                2 => drop(bytes.splice(one..one, self.pick(&ODD).iter().copied())),
                3 => drop(bytes.drain(range)),
                4 => {
                    let copy = bytes[range].repeat(1 + self.below(8));
                    bytes.splice(one..one, copy);
                }
                5 => {
                    let from = &seeds[self.below(seeds.len())];
                    let start = self.below(from.len() + 1);
                    bytes.splice(range, from[start..].iter().copied().take(60));
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(one) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        bytes.truncate(LARGE);
        bytes
    }
}
