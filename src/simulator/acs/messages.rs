//! The messages of 3-D Secure that pass through the payer's browser, in both shapes that are in use.
//!
//! They are reduced to what is used here, and 1.0.2's are not signed: the bank that issues them is the one that reads
//! them, and believes its own memory. So no message is ever taken apart: it is the one that was issued, or it is not.

use std::io::Write as _;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use flate2::{Compression, write::ZlibEncoder};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// Which 3-D Secure a challenge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::simulator) enum Protocol {
    /// 3-D Secure 1.0.2: `PaReq` and `MD`, answered by `PaRes` and `MD`.
    V1,
    /// EMV 3-D Secure 2.2.0: `creq`, answered by `cres`.
    V2,
}

impl Protocol {
    /// The form field that holds the request.
    pub(super) const fn request_field(self) -> &'static str {
        match self {
            Self::V1 => "PaReq",
            Self::V2 => "creq",
        }
    }

    /// The form field that holds the answer.
    pub(in crate::simulator) const fn answer_field(self) -> &'static str {
        match self {
            Self::V1 => "PaRes",
            Self::V2 => "cres",
        }
    }
}

/// The challenge's fields that the shop's form carries.
pub(in crate::simulator) fn fields(protocol: Protocol, reference: &str) -> Vec<(String, String)> {
    let mut fields = vec![(protocol.request_field().to_owned(), request(protocol, reference))];
    if protocol == Protocol::V1 {
        fields.push(("MD".to_owned(), reference.to_owned()));
    }
    fields
}

/// Whether this is the request issued for this authorization.
pub(super) fn is_request(protocol: Protocol, reference: &str, message: &str) -> bool {
    unpadded(message) == unpadded(&request(protocol, reference))
}

/// Whether this is the answer issued for this authorization when it was confirmed.
pub(in crate::simulator) fn is_answer(protocol: Protocol, reference: &str, message: &str) -> bool {
    unpadded(message) == unpadded(&answer(protocol, reference, true))
}

/// Who carries a message on may pad it or not.
fn unpadded(message: &str) -> &str {
    message.trim_end_matches('=')
}

fn request(protocol: Protocol, reference: &str) -> String {
    match protocol {
        Protocol::V1 => deflated(&format!(
            "<PAReq><version>1.0.2</version><Purchase><xid>{}</xid></Purchase></PAReq>",
            xid(reference)
        )),
        Protocol::V2 => emv(reference, "CReq", None),
    }
}

/// The answer: whether the bank confirms the payer (`transStatus` or `status`, `Y` or `N`).
pub(in crate::simulator) fn answer(protocol: Protocol, reference: &str, confirmed: bool) -> String {
    let status = if confirmed { "Y" } else { "N" };
    match protocol {
        Protocol::V1 => deflated(&format!(
            "<PARes><version>1.0.2</version><Purchase><xid>{}</xid></Purchase><TX><status>{status}</status></TX></PARes>",
            xid(reference)
        )),
        Protocol::V2 => emv(reference, "CRes", Some(status)),
    }
}

/// EMV 3-D Secure protocol 2.2.0, tables B.3 and B.4, in the order that they are listed there.
#[derive(Serialize)]
struct Emv<'a> {
    #[serde(rename = "threeDSServerTransID")]
    server: Uuid,
    #[serde(rename = "acsTransID")]
    acs: Uuid,
    #[serde(rename = "challengeWindowSize", skip_serializing_if = "Option::is_none")]
    window: Option<&'a str>,
    #[serde(rename = "messageType")]
    kind: &'a str,
    #[serde(rename = "messageVersion")]
    version: &'a str,
    #[serde(rename = "transStatus", skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
}

fn emv(reference: &str, kind: &str, status: Option<&str>) -> String {
    let id = |of: &str| {
        let digest: [u8; 32] = Sha256::digest(format!("{of} {reference}")).into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    };
    // 05 is the full screen.
    let window = (kind == "CReq").then_some("05");
    let message = Emv { server: id("threeDSServer"), acs: id("acs"), window, kind, version: "2.2.0", status };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&message).unwrap_or_default())
}

/// A transaction's identifier in 1.0.2: 20 bytes in base64.
fn xid(reference: &str) -> String {
    STANDARD.encode(&Sha256::digest(format!("xid {reference}"))[..20])
}

/// A message as 1.0.2 sends it: XML, deflated (RFC 1950), in base64.
fn deflated(message: &str) -> String {
    let xml = format!("<ThreeDSecure><Message>{message}</Message></ThreeDSecure>");
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let _ = zlib.write_all(xml.as_bytes());
    STANDARD.encode(zlib.finish().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_message_of_version_2_is_json_in_base64url_with_the_standards_names() {
        let read = |text: &str| -> serde_json::Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
        };
        let (creq, cres) = (read(&fields(Protocol::V2, "ref").remove(0).1), read(&answer(Protocol::V2, "ref", true)));
        assert_eq!((&creq["messageType"], &creq["messageVersion"]), (&"CReq".into(), &"2.2.0".into()));
        assert_eq!((&cres["messageType"], &cres["transStatus"]), (&"CRes".into(), &"Y".into()));
        assert_eq!(creq["acsTransID"], cres["acsTransID"]);
        assert_ne!(creq["acsTransID"], creq["threeDSServerTransID"]);
        assert_eq!(read(&answer(Protocol::V2, "ref", false))["transStatus"], "N");
    }

    #[test]
    fn a_message_of_version_1_is_deflated_xml() {
        let read = |text: &str| {
            let mut xml = String::new();
            flate2::read::ZlibDecoder::new(&STANDARD.decode(text).unwrap()[..]).read_to_string(&mut xml).unwrap();
            xml
        };
        let sent = fields(Protocol::V1, "ref");
        assert_eq!((sent[0].0.as_str(), &sent[1]), ("PaReq", &("MD".to_owned(), "ref".to_owned())));
        assert!(read(&sent[0].1).contains("<PAReq><version>1.0.2</version>"));
        assert!(read(&answer(Protocol::V1, "ref", true)).contains("<TX><status>Y</status></TX>"));
        assert!(read(&answer(Protocol::V1, "ref", false)).contains("<TX><status>N</status></TX>"));
    }

    #[test]
    fn only_what_was_issued_for_this_authorization_is_taken_padded_or_not() {
        for protocol in [Protocol::V1, Protocol::V2] {
            let (mine, others) = (answer(protocol, "ref-1", true), answer(protocol, "ref-2", true));
            assert!(
                is_answer(protocol, "ref-1", &mine) && is_answer(protocol, "ref-1", &format!("{}==", unpadded(&mine)))
            );
            assert!(!is_answer(protocol, "ref-1", &others));
            assert!(!is_answer(protocol, "ref-1", &answer(protocol, "ref-1", false)));
            assert!(!is_answer(protocol, "ref-1", "nonsense"));
            assert!(is_request(protocol, "ref-1", &request(protocol, "ref-1")));
            assert!(!is_request(protocol, "ref-1", &request(protocol, "ref-2")) && !is_request(protocol, "ref-1", ""));
        }
    }
}
