//! Fingerprints of cards: how the limits know a card again without knowing its number.
//!
//! A fingerprint is HMAC-SHA256 over the whole number. PCI DSS 4.0.1 names exactly this, in 3.5.1.1, as a way to make a stored
//! number unreadable: *keyed cryptographic hashes of the entire PAN*, with the key managed by 3.6 and 3.7. A hash without
//! a key would be none: there are 10^9 numbers behind a bank's first six digits and a check digit, and a
//! masked number beside it leaves 10^5. So key and database must be kept apart: the key is a file of the authorize
//! workers; the database, which every role reads, never has it, and no other role may read the file. A fingerprint
//! leaves the worker only for the database: it stands in no message, log or metric. The key is never rotated, and what
//! destroys sealing keys (`*.pem`) does not see its file.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use aes_gcm::{Aes256Gcm, Key, aead::Generate};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::keys::{KeyDirError, sync_dir, write_private};
use crate::payment::card::Card;

const KEY_BYTES: usize = 32;

/// The key of fingerprints.
pub struct FingerprintKey(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey(***)")
    }
}

impl FingerprintKey {
    /// Reads the key from its file, making it (mode 0600) when there is none. Of several processes that make it at once, all
    /// get the same one.
    ///
    /// # Errors
    /// When the file cannot be read or made, others than its owner may read it, or it does not have 32 bytes.
    pub fn open(path: &Path) -> Result<Self, KeyDirError> {
        let io = |source| KeyDirError::Io { path: path.to_owned(), source };
        match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(io)?;
                Self::read(path, fs::File::open(path).map_err(io)?)
            }
            opened => Self::read(path, opened.map_err(io)?),
        }
    }

    fn read(path: &Path, mut file: fs::File) -> Result<Self, KeyDirError> {
        let io = |source| KeyDirError::Io { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(io)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyDirError::TooOpen(path.to_owned()));
        }
        if metadata.len() != KEY_BYTES as u64 {
            return Err(KeyDirError::NoFingerprintKey(path.to_owned()));
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        file.read_exact(&mut key[..]).map_err(io)?;
        Ok(Self(key))
    }

    /// The fingerprint of a card: the same for the same number, and nothing to anybody without the key.
    pub fn of(&self, card: &Card) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..]).expect("HMAC takes a key of any length");
        // Buffers and state are zeroized when it is dropped (feature `zeroize` of both crates).
        mac.update(card.number().as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Makes the file in one step that only one process wins.
fn make(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hidden = folder.join(format!(".{}.new", uuid::Uuid::now_v7().simple()));
    let mut key = Key::<Aes256Gcm>::generate();
    let written = write_private(&hidden, &key);
    key.zeroize();
    let linked = written.and_then(|()| fs::hard_link(&hidden, path));
    let removed = fs::remove_file(&hidden);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => removed,
        linked => linked.and(removed).and_then(|()| sync_dir(folder)),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::OpenOptionsExt, path::PathBuf, thread};

    use super::*;
    use crate::payment::card::{CardInput, CardRules};

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tolom-fingerprint-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn card(number: &str, holder: &str) -> Card {
        let (expiry_month, expiry_year, cvc) = (12, 2030, "123".to_owned());
        let input = CardInput { number: number.into(), expiry_month, expiry_year, cvc, holder: holder.into() };
        input.check(&CardRules::default(), (2026, 11)).unwrap()
    }

    #[test]
    fn a_fingerprint_is_of_the_number_alone_and_of_the_key() {
        let folder = folder();
        let [one, other] = ["a", "b"].map(|name| FingerprintKey::open(&folder.join(name)).unwrap());
        let visa = card("4111111111111111", "AIBEK ASANOV");
        assert_eq!(one.of(&visa), one.of(&card("4111111111111111", "A B")));
        assert_ne!(one.of(&visa), one.of(&card("5555555555554444", "AIBEK ASANOV")));
        assert_ne!(one.of(&visa), other.of(&visa));
        assert_eq!(format!("{one:?}"), "FingerprintKey(***)");
        fs::remove_dir_all(folder).unwrap();
    }

    /// RFC 4231, test case 2, shows that it is the HMAC everybody means; this is the same with our input.
    #[test]
    fn it_is_the_hmac_of_rfc_2104() {
        let key = FingerprintKey(Zeroizing::new([0x0b; 32]));
        let mut expected = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        expected.update(b"what do ya want for nothing?");
        let bytes: [u8; 32] = expected.finalize().into_bytes().into();
        assert_eq!(bytes[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        // Independently: printf 4111111111111111 | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b0b...
        let hex: String = key.of(&card("4111111111111111", "A B")).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "fa61b145ec820bc4a65f8a5c629f5aaa963c889be33aaa4de3d9eb3e5d9a2818");
    }

    #[test]
    fn workers_that_start_together_share_one_key() {
        let folder = folder();
        let file = folder.join("key");
        let visa = card("4111111111111111", "A B");
        let prints: Vec<_> = thread::scope(|scope| {
            let open = || scope.spawn(|| FingerprintKey::open(&file).unwrap().of(&visa));
            let started: Vec<_> = (0..8).map(|_| open()).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(prints.iter().all(|print| *print == prints[0]));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_no_key_is_refused() {
        let folder = folder();
        let write = |name: &str, mode: u32, content: &[u8]| {
            let file = folder.join(name);
            let mut options = fs::OpenOptions::new();
            io::Write::write_all(&mut options.write(true).create_new(true).mode(mode).open(&file).unwrap(), content)
                .unwrap();
            FingerprintKey::open(&file).unwrap_err()
        };
        assert!(matches!(write("open", 0o640, &[0; 32]), KeyDirError::TooOpen(_)));
        assert!(matches!(write("short", 0o600, &[0; 31]), KeyDirError::NoFingerprintKey(_)));
        fs::remove_dir_all(folder).unwrap();
    }
}
