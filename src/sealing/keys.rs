//! Private sealing keys: one PKCS#8 PEM file each, readable by its owner alone.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aes_gcm::aead::Generate;
use p256::{
    PublicKey, SecretKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::jwe::{Kid, OpeningKey, SealError, Sealed};
use crate::payment::{PaymentCode, card::CardInput};

/// A key in memory is given up this long after its file was last seen, should another process have destroyed it.
const SEEN_FOR: Duration = Duration::from_secs(60);
/// A private key's file has about 240 bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// The folder of private keys, with those in memory that were used.
#[derive(Debug)]
pub struct KeyDir {
    path: PathBuf,
    cache: Mutex<HashMap<Kid, Cached>>,
}

#[derive(Clone)]
struct Cached {
    key: Arc<OpeningKey>,
    seen: Instant,
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cached(***)")
    }
}

/// Why a key or the folder cannot be used. Never quotes a file's content.
#[derive(Debug, thiserror::Error)]
pub enum KeyDirError {
    /// The file system refuses.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner may read it.
    #[error("{0} may be read by others than its owner: chmod 600 the file, 700 the folder, and retire the key")]
    TooOpen(PathBuf),
    /// Not a PKCS#8 key on P-256.
    #[error("{0} is not a PKCS#8 private key on P-256")]
    Unreadable(PathBuf),
    /// Not a key of fingerprints.
    #[error("{0} does not have the 32 bytes of a key of card fingerprints")]
    NoFingerprintKey(PathBuf),
}

impl KeyDir {
    /// Opens the folder, making it (mode 0700) when it is missing. A folder that others may enter is refused.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyDirError> {
        let path = path.into();
        let io = |source| KeyDirError::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io)?;
        let mode = fs::metadata(&path).map_err(io)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyDirError::TooOpen(path));
        }
        Ok(Self { path, cache: Mutex::default() })
    }

    /// Opens a sealed card with the key that it names, checking form, time and bill.
    pub fn open_card(
        &self,
        jwe: &str,
        bill: &PaymentCode,
        now: OffsetDateTime,
    ) -> Result<Result<CardInput, SealError>, KeyDirError> {
        let sealed = match Sealed::taken(jwe, now) {
            Ok(sealed) => sealed,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(key) = self.get(sealed.kid())? else { return Ok(Err(SealError::UnknownKey)) };
        Ok(sealed.open(&key, bill))
    }

    /// The key of this name, read from its file when it is not in memory yet; none if there is no such file.
    pub fn get(&self, kid: &Kid) -> Result<Option<Arc<OpeningKey>>, KeyDirError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.get_mut(kid) {
            if cached.seen.elapsed() < SEEN_FOR {
                return Ok(Some(cached.key.clone()));
            }
            if self.file(kid).exists() {
                cached.seen = Instant::now();
                return Ok(Some(cached.key.clone()));
            }
            cache.remove(kid);
            return Ok(None);
        }
        let Some(key) = self.read(kid)? else { return Ok(None) };
        let key = Arc::new(OpeningKey::new(&key));
        cache.insert(kid.clone(), Cached { key: key.clone(), seen: Instant::now() });
        Ok(Some(key))
    }

    /// Makes a key: the file first, so that no card is ever sealed with a key that cannot be opened.
    pub fn create(&self) -> Result<(Kid, PublicKey), KeyDirError> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let kid: Kid = name.parse().expect("32 hexadecimal digits are a key's name");
        let key = SecretKey::generate();
        let file = self.file(&kid);
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyDirError::Unreadable(file.clone()))?;
        let hidden = self.path.join(format!(".{kid}.new"));
        write_private(&hidden, pem.as_bytes())
            .and_then(|()| fs::rename(&hidden, &file))
            .and_then(|()| sync_dir(&self.path))
            .map_err(|source| KeyDirError::Io { path: file, source })?;
        Ok((kid, key.public_key()))
    }

    /// Destroys a key, in memory and on disk. Well when it is gone already.
    pub fn destroy(&self, kid: &Kid) -> Result<(), KeyDirError> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(kid);
        let file = self.file(kid);
        let removed = match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.and_then(|()| sync_dir(&self.path)),
        };
        removed.map_err(|source| KeyDirError::Io { path: file, source })
    }

    /// The keys that are here, with the times their files were made.
    pub fn list(&self) -> Result<Vec<(Kid, SystemTime)>, KeyDirError> {
        let io = |source| KeyDirError::Io { path: self.path.clone(), source };
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let kid = name.to_str().and_then(|name| name.strip_suffix(".pem")).and_then(|name| name.parse().ok());
            let made = entry.metadata().and_then(|metadata| metadata.modified());
            if let (Some(kid), Ok(made)) = (kid, made) {
                keys.push((kid, made));
            }
        }
        Ok(keys)
    }

    fn file(&self, kid: &Kid) -> PathBuf {
        self.path.join(format!("{kid}.pem"))
    }

    fn read(&self, kid: &Kid) -> Result<Option<SecretKey>, KeyDirError> {
        let path = self.file(kid);
        let io = |source| KeyDirError::Io { path: path.clone(), source };
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io)?,
        };
        // Of the open file, so that it cannot be exchanged in between.
        if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
            return Err(KeyDirError::TooOpen(path));
        }
        let mut pem = Zeroizing::new(String::with_capacity(512));
        file.take(MAX_FILE_BYTES).read_to_string(&mut pem).map_err(io)?;
        SecretKey::from_pkcs8_pem(&pem).map(Some).map_err(|_| KeyDirError::Unreadable(path))
    }
}

/// Writes a file that nobody but the owner could read at any moment.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        std::env::temp_dir().join(format!("tolom-keys-{}", uuid::Uuid::now_v7()))
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_its_owners_alone_and_is_found_by_name() {
        let path = folder();
        let keys = KeyDir::open(&path).unwrap();
        let (kid, public) = keys.create().unwrap();
        let file = path.join(format!("{kid}.pem"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // Another process reads what this one made.
        let other = KeyDir::open(&path).unwrap();
        assert_eq!(other.get(&kid).unwrap().unwrap().public_key(), public);
        let (later, _) = keys.create().unwrap();
        assert!(other.get(&later).unwrap().is_some(), "a key made later is found too");
        assert_eq!(keys.list().unwrap().len(), 2);
        keys.destroy(&kid).unwrap();
        keys.destroy(&kid).unwrap();
        assert!(keys.get(&kid).unwrap().is_none() && !file.exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_others_may_read_is_refused() {
        let path = folder();
        let keys = KeyDir::open(&path).unwrap();
        let (kid, _) = keys.create().unwrap();
        chmod(&path.join(format!("{kid}.pem")), 0o640);
        assert!(matches!(keys.get(&kid), Err(KeyDirError::TooOpen(_))));
        chmod(&path, 0o755);
        assert!(matches!(KeyDir::open(&path), Err(KeyDirError::TooOpen(_))));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let path = folder();
        let keys = KeyDir::open(&path).unwrap();
        write_private(&path.join("broken.pem"), b"secret words").unwrap();
        let error = keys.get(&"broken".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("broken.pem") && !error.contains("secret"), "{error}");
        fs::remove_dir_all(path).unwrap();
    }
}
