use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

/// Made by npm `jose` 6 (`CompactEncrypt`), a stranger to this code.
const JOSE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjLJvSSO6+0AIBM37
VPMTNHGOxIU3BWv6MsgCf0cPfTihRANCAASIZNFpt96TBa+3KzkEwRMCMmeI54/s
3XVFL0c+id8pa8d0iU4GLRuOvKSDRdg1PZ33DpF6SCnZ7YkED6R9ivyE
-----END PRIVATE KEY-----
";
const JOSE_JWE: &str = "eyJhbGciOiJFQ0RILUVTIiwiZW5jIjoiQTI1NkdDTSIsImtpZCI6InZlY3Rvci0xIiwiYmlsbCI6IjExMDAwMDAwMDEiLC\
JleHAiOjE3OTUwMDAwMDAsImVwayI6eyJ4IjoiY1hzQkFVSHpyVnQweW9TcTJDYkp1c3FTSnZ4M2lwcEYxZkR2SXRNYTRIYyIsImNydiI6IlAtMjU2Iiwi\
a3R5IjoiRUMiLCJ5IjoicXhyMkgtR3VtcjF3VlFnVXlUcUhpbFEyZUhqdzE1TTFZWkg1c0VGNjVfdyJ9fQ..Q0vokCJslR9E_V3u.acUpAZMYD4oekCYyR\
1qshjHFAveDIOIyxyJpbCWF6XCo7ZcLSnK9N_rZPlwKQwRWw4RvyQehRsZ6RQ3oFbNEw-vIgHPf9GytNnc4JXzHaANXe9ZQwDfgQAW0m1SiZbRu3WpHSoF\
0.vfBExds8YRLksFzczTvw4Q";

fn card() -> CardInput {
    CardInput {
        number: "4111111111111111".into(),
        expiry_month: 12,
        expiry_year: 2030,
        cvc: "123".into(),
        holder: "AIBEK ASANOV".into(),
    }
}

fn bill() -> PaymentCode {
    "1100000001".parse().unwrap()
}

fn kid() -> Kid {
    "key-1".parse().unwrap()
}

fn sealed(private: &SecretKey, expires_at: OffsetDateTime) -> String {
    seal(&private.public_key(), &kid(), &bill(), expires_at, &card())
}

/// Seals with a header of the test's making.
fn with_header(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let jwe = sealed(&SecretKey::generate(), NOW + time::Duration::minutes(5));
    let (header, rest) = jwe.split_once('.').unwrap();
    let mut header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    change(&mut header);
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

#[test]
fn the_key_derivation_agrees_with_rfc_7518_appendix_c() {
    let alice = SecretKey::from_slice(&URL_SAFE_NO_PAD.decode("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo").unwrap());
    let bob = Coordinates {
        kty: "EC".into(),
        crv: "P-256".into(),
        x: "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ".into(),
        y: "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck".into(),
    };
    let shared = alice.unwrap().diffie_hellman(&bob.key().unwrap());
    let key = concat_kdf(shared.raw_secret_bytes(), "A128GCM", b"Alice", b"Bob", 128);
    assert_eq!(URL_SAFE_NO_PAD.encode(&key[..16]), "VqqN6vgjbSBcIijNcacQGg");
}

#[test]
fn a_card_sealed_by_jose_is_opened() {
    use p256::pkcs8::DecodePrivateKey;
    let private = SecretKey::from_pkcs8_pem(JOSE_KEY).unwrap();
    let at = OffsetDateTime::from_unix_timestamp(1_794_999_900).unwrap();
    let header = SealedHeader::parse(JOSE_JWE, at).unwrap();
    assert_eq!((header.kid.as_str(), header.bill.as_str()), ("vector-1", "1100000001"));
    let opened = open(&OpeningKey::new(&private), JOSE_JWE, &bill(), at).unwrap();
    assert_eq!((opened.number.as_str(), opened.cvc.as_str()), ("4111111111111111", "123"));
    assert_eq!((opened.expiry_month, opened.expiry_year, opened.holder.as_str()), (12, 2030, "AIBEK ASANOV"));
}

#[test]
fn what_we_seal_we_open_and_a_jwk_reads_back() {
    let private = SecretKey::generate();
    let (name, public) = public_key(&public_jwk(&kid(), &private.public_key())).unwrap();
    let jwe = seal(&public, &name, &bill(), NOW + time::Duration::minutes(15), &card());
    assert_eq!(SealedHeader::parse(&jwe, NOW).unwrap().kid, kid());
    assert_eq!(open(&OpeningKey::new(&private), &jwe, &bill(), NOW).unwrap().number, "4111111111111111");
    assert_eq!(open(&OpeningKey::new(&SecretKey::generate()), &jwe, &bill(), NOW).unwrap_err(), SealError::Tag);
    let other = "1600000001".parse().unwrap();
    assert_eq!(open(&OpeningKey::new(&private), &jwe, &other, NOW).unwrap_err(), SealError::OtherBill);
}

#[test]
fn a_sealed_card_lives_fifteen_minutes_at_most() {
    let private = SecretKey::generate();
    let too_far = Some(SealError::TooFarAhead);
    // What the intake's form check says, and the worker, whose clock may be a minute behind.
    for (ahead_s, intake, worker) in [
        (-1, None, Some(SealError::Expired)),
        (0, None, Some(SealError::Expired)),
        (1, None, None),
        (900, None, None),
        (901, too_far, None),
        (960, too_far, None),
        (961, too_far, too_far),
    ] {
        let jwe = sealed(&private, NOW + time::Duration::seconds(ahead_s));
        assert_eq!(SealedHeader::parse(&jwe, NOW).err(), intake, "{ahead_s}");
        assert_eq!(open(&OpeningKey::new(&private), &jwe, &bill(), NOW).err(), worker, "{ahead_s}");
    }
}

#[test]
fn a_sealed_card_is_named_by_its_expiry_and_its_text() {
    let private = SecretKey::generate();
    let name = |jwe: &str| SealedHeader::parse(jwe, NOW).unwrap().id;
    let at = |ahead_s| sealed(&private, NOW + time::Duration::seconds(ahead_s));
    let (one, other, later) = (at(1), at(1), at(2));
    assert_eq!(name(&one), name(&one.clone()));
    assert_ne!(name(&one), name(&other), "the same card, sealed anew");
    assert!(name(&one).max(name(&other)) < name(&later), "in the order of time");
    let millis = u128::try_from(NOW.unix_timestamp() + 1).unwrap() * 1_000;
    assert_eq!((name(&one).as_u128() >> 80, name(&one).get_version_num()), (millis, 8));
}

#[test]
fn another_form_or_algorithm_is_refused() {
    let error = |change: fn(&mut serde_json::Value)| SealedHeader::parse(&with_header(change), NOW).err();
    assert_eq!(error(|_| ()), None);
    assert_eq!(error(|header| header["typ"] = "JWE".into()), None, "unknown members are ignored");
    assert_eq!(error(|header| header["alg"] = "RSA-OAEP".into()), Some(SealError::Algorithm));
    assert_eq!(error(|header| header["alg"] = "none".into()), Some(SealError::Algorithm));
    assert_eq!(error(|header| header["enc"] = "A128GCM".into()), Some(SealError::Algorithm));
    assert_eq!(error(|header| header["epk"]["crv"] = "P-384".into()), Some(SealError::Algorithm));
    let changes: [fn(&mut serde_json::Value); 11] = [
        |header| header["kid"] = "../key".into(),
        |header| header["kid"] = "".into(),
        |header| header["bill"] = "11a".into(),
        |header| header["exp"] = "soon".into(),
        |header| header["exp"] = i64::MAX.into(),
        |header| header["crit"] = serde_json::json!(["exp"]),
        |header| header["zip"] = "DEF".into(),
        |header| header["epk"]["x"] = "AAAA".into(),
        |header| header["epk"]["y"] = header["epk"]["x"].clone(),
        |header| header["apu"] = "a".repeat(200).into(),
        |header| *header = serde_json::json!([]),
    ];
    for change in changes {
        let jwe = with_header(change);
        assert!(matches!(SealedHeader::parse(&jwe, NOW), Err(SealError::Form(_))), "{jwe}");
    }
}

#[test]
fn a_changed_header_or_text_breaks_the_tag() {
    let private = SecretKey::generate();
    let jwe = sealed(&private, NOW + time::Duration::minutes(5));
    let (header, rest) = jwe.split_once('.').unwrap();
    let json = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let longer = json.replace("\"bill\":\"1100000001\"", "\"bill\":\"1100000002\"");
    let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(longer));
    assert_eq!(
        open(&OpeningKey::new(&private), &forged, &"1100000002".parse().unwrap(), NOW).unwrap_err(),
        SealError::Tag
    );
    let mut parts: Vec<_> = jwe.split('.').map(str::to_owned).collect();
    let flipped = if parts[3].starts_with('A') { 'B' } else { 'A' };
    parts[3].replace_range(..1, &flipped.to_string());
    assert_eq!(open(&OpeningKey::new(&private), &parts.join("."), &bill(), NOW).unwrap_err(), SealError::Tag);
}

#[test]
fn only_a_card_is_read_as_a_card() {
    let text = br#"{"number":"4111111111111111","expiry_month":1,"expiry_year":2030,"cvc":"123","holder":"O\/NEIL"}"#;
    assert_eq!(read_card(text).unwrap().holder, "O/NEIL");
    for text in [&b"{}"[..], b"[]", b"\xff", br#"{"number":4111111111111111}"#] {
        assert_eq!(read_card(text).unwrap_err(), SealError::Content);
    }
    assert!(!format!("{:?}", SealError::Content).contains("4111"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}") {
        let _ = SealedHeader::parse(&text, NOW);
    }

    #[test]
    fn no_parts_make_the_reader_panic(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 5),
        header in prop_oneof![Just(None), prop::collection::hash_map("alg|enc|kid|bill|exp|epk|apu", ".{0,12}", 0..7).prop_map(Some)],
    ) {
        let mut parts: Vec<_> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        parts[1].clear();
        if let Some(header) = header {
            parts[0] = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).unwrap());
        }
        let _ = SealedHeader::parse(&parts.join("."), NOW);
    }

    #[test]
    fn a_cut_or_altered_sealed_card_never_opens(place in 0_usize..400, by in 1_u8..255) {
        let private = SecretKey::generate();
        let jwe = sealed(&private, NOW + time::Duration::minutes(5));
        let mut bytes = jwe.clone().into_bytes();
        let place = place % bytes.len();
        bytes[place] = bytes[place].wrapping_add(by);
        if let Ok(altered) = String::from_utf8(bytes) {
            prop_assert!(altered == jwe || open(&OpeningKey::new(&private), &altered, &bill(), NOW).is_err());
        }
        prop_assert!(open(&OpeningKey::new(&private), &jwe[..place], &bill(), NOW).is_err());
    }
}
