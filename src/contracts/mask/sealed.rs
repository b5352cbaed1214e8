//! Sealed cards by their form: a compact JWE (RFC 7516, 7.1), five parts of base64url, the first of them JSON.

const PARTS: usize = 5;

/// Masks every compact JWE.
pub(super) fn mask(bytes: &mut [u8]) -> bool {
    let (mut found, mut at) = (false, 0);
    while at < bytes.len() {
        let token = bytes[at..].iter().take_while(|byte| is_part(**byte) || **byte == b'.').count();
        if is_jwe(&bytes[at..at + token]) {
            bytes[at..at + token].fill(b'*');
            found = true;
        }
        at += token.max(1);
    }
    found
}

const fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// `eyJ` is `{"` in base64url. The encrypted key, the second part, is empty with ECDH-ES.
fn is_jwe(token: &[u8]) -> bool {
    token.starts_with(b"eyJ") && token.split(|byte| *byte == b'.').count() == PARTS
}
