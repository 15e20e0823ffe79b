use super::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm,
};
use serde_json::{Value, json};

const NOW: Duration = Duration::from_secs(1_000_000);

fn pair(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn sign(claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> Vec<u8> {
    encode(&Header::new(algorithm), claims, key).unwrap().into_bytes()
}

fn ed(pair: &KeyPair) -> EncodingKey {
    EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap()
}

fn tokens(file: &str, audience: Option<&str>) -> Tokens {
    Tokens::new(Keys::parse(file).unwrap(), audience.map(str::to_owned))
}

/// Base64 of a secret.
const SECRET: &str = "aHVuZHJlZHMgb2YgZXZlbnRzIGFuZCBvbmUgc2VjcmV0";

fn secret() -> EncodingKey {
    EncodingKey::from_base64_secret(SECRET).unwrap()
}

fn hs256(claims: &Value) -> Vec<u8> {
    sign(claims, Algorithm::HS256, &secret())
}

#[test]
fn a_token_of_any_of_the_keys_lets_its_user_in() {
    let (first, second, ec, rsa) =
        (pair(&PKCS_ED25519), pair(&PKCS_ED25519), pair(&PKCS_ECDSA_P256_SHA256), pair(&PKCS_RSA_SHA256));
    let file = format!(
        "# two of them\n{}{}\nhs256:{SECRET}\n{}{}",
        first.public_key_pem(),
        second.public_key_pem(),
        ec.public_key_pem(),
        rsa.public_key_pem()
    );
    let tokens = tokens(&file, None);
    let claims = json!({"sub": "2932", "exp": 1_000_060, "aud": "whoever", "iss": "x", "more": [1, null]});
    let ec = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes()).unwrap();
    let rsa = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes()).unwrap();
    for token in [
        sign(&claims, Algorithm::EdDSA, &ed(&first)),
        sign(&claims, Algorithm::EdDSA, &ed(&second)),
        sign(&claims, Algorithm::ES256, &ec),
        sign(&claims, Algorithm::RS256, &rsa),
        hs256(&claims),
    ] {
        assert_eq!(tokens.judge(&token, UserId::new(2932), NOW), Some(Duration::from_secs(60)));
        assert_eq!(tokens.judge(&token, UserId::new(2933), NOW), None, "another user");
        let mut cut = token.clone();
        cut.pop();
        assert_eq!(tokens.judge(&cut, UserId::new(2932), NOW), None, "cut");
    }
    let stranger = pair(&PKCS_ED25519);
    assert_eq!(tokens.judge(&sign(&claims, Algorithm::EdDSA, &ed(&stranger)), UserId::new(2932), NOW), None);
}

#[test]
fn times_count_without_leeway() {
    let tokens = tokens(&format!("hs256:{SECRET}"), None);
    let judge = |claims: Value| tokens.judge(&hs256(&claims), UserId::new(7), NOW);
    assert_eq!(judge(json!({"sub": "7", "exp": 1_000_001})), Some(Duration::from_secs(1)));
    assert_eq!(judge(json!({"sub": "7", "exp": 1_000_000.5})), Some(Duration::from_millis(500)));
    assert_eq!(judge(json!({"sub": "7", "exp": 1_000_000})), None, "over");
    assert_eq!(judge(json!({"sub": "7", "exp": 999_999})), None);
    assert_eq!(judge(json!({"sub": "7", "exp": -1})), None);
    assert_eq!(judge(json!({"sub": "7", "exp": 1_000_001, "nbf": 1_000_000})), Some(Duration::from_secs(1)));
    assert_eq!(judge(json!({"sub": "7", "exp": 1_000_009, "nbf": 1_000_001})), None, "not yet");
    assert!(judge(json!({"sub": "7", "exp": u64::MAX})).is_some());
}

#[test]
fn what_is_asked_for_must_be_there_and_be_what_it_is() {
    let tokens = tokens(&format!("hs256:{SECRET}"), None);
    for claims in [
        json!({"sub": "7"}),
        json!({"exp": 2_000_000}),
        json!({"sub": 7, "exp": 2_000_000}),
        json!({"sub": "+7", "exp": 2_000_000}),
        json!({"sub": "", "exp": 2_000_000}),
        json!({"sub": " 7", "exp": 2_000_000}),
        json!({"sub": "7", "exp": "2000000"}),
        json!({"sub": "7", "exp": null}),
        json!({"sub": "7", "exp": 2_000_000, "nbf": "1"}),
        json!([]),
    ] {
        assert_eq!(tokens.judge(&hs256(&claims), UserId::new(7), NOW), None, "{claims}");
    }
    let largest = json!({"sub": "18446744073709551615", "exp": 2_000_000});
    assert!(tokens.judge(&hs256(&largest), UserId::new(u64::MAX), NOW).is_some());
}

#[test]
fn where_an_audience_is_set_the_token_must_be_for_it() {
    let tokens = tokens(&format!("hs256:{SECRET}"), Some("fortnight"));
    let judge = |claims: Value| tokens.judge(&hs256(&claims), UserId::new(7), NOW).is_some();
    assert!(judge(json!({"sub": "7", "exp": 2_000_000, "aud": "fortnight"})));
    assert!(judge(json!({"sub": "7", "exp": 2_000_000, "aud": ["other", "fortnight"]})));
    assert!(!judge(json!({"sub": "7", "exp": 2_000_000, "aud": "fortnight2"})));
    assert!(!judge(json!({"sub": "7", "exp": 2_000_000, "aud": ["other"]})));
    assert!(!judge(json!({"sub": "7", "exp": 2_000_000, "aud": []})));
    assert!(!judge(json!({"sub": "7", "exp": 2_000_000})));
}

#[test]
fn the_algorithm_is_that_of_the_key() {
    let pair = pair(&PKCS_ED25519);
    let tokens = tokens(&pair.public_key_pem(), None);
    let claims = json!({"sub": "7", "exp": 2_000_000});
    // The public key, which everybody knows, as a secret: as it is written, and as bytes.
    for key in
        [pair.public_key_pem().into_bytes(), pair.public_key_raw().to_vec(), pair.subject_public_key_info()]
    {
        let token = sign(&claims, Algorithm::HS256, &EncodingKey::from_secret(&key).unwrap());
        assert_eq!(tokens.judge(&token, UserId::new(7), NOW), None);
    }
    // No signature at all: `alg` is `none`.
    let payload = "eyJzdWIiOiI3IiwiZXhwIjoyMDAwMDAwfQ";
    for head in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0", "eyJhbGciOiJFZERTQSJ9", "e30"] {
        for signature in ["", "AA"] {
            let token = format!("{head}.{payload}.{signature}");
            assert_eq!(tokens.judge(token.as_bytes(), UserId::new(7), NOW), None, "{token}");
        }
    }
    let hs512 = sign(&claims, Algorithm::HS512, &secret());
    assert_eq!(
        super::Tokens::new(Keys::parse(&format!("hs256:{SECRET}")).unwrap(), None).judge(
            &hs512,
            UserId::new(7),
            NOW
        ),
        None
    );
}

#[test]
fn a_bad_file_of_keys_is_refused_with_its_line() {
    let refusal = |text: &str| Keys::parse(text).unwrap_err().to_string();
    assert_eq!(refusal(""), "there is no key in it");
    assert_eq!(refusal("# nothing\n\n"), "there is no key in it");
    assert_eq!(refusal("\nhs256:%"), "line 2: what follows hs256: is not base64 of a secret");
    assert_eq!(refusal("hs256:"), "line 1: what follows hs256: is not base64 of a secret");
    let pair = pair(&PKCS_ED25519);
    assert_eq!(refusal(&pair.serialize_pem()), "line 1: a private key; only the public one belongs here");
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(refusal(&other.public_key_pem()), "line 1: no public key of Ed25519, P-256 or RSA");
    let cut: String = pair.public_key_pem().lines().take(1).collect();
    assert_eq!(refusal(&cut), "line 1: no public key of Ed25519, P-256 or RSA");
    let garbage = format!("{}garbage", pair.public_key_pem());
    assert!(refusal(&garbage).contains("neither the beginning of a PEM block nor hs256: and base64"));
}

proptest! {
    #[test]
    fn no_token_is_too_strange(token: Vec<u8>) {
        prop_assert_eq!(tokens(&format!("hs256:{SECRET}"), None).judge(&token, UserId::new(7), NOW), None);
    }

    #[test]
    fn no_file_is_too_strange(text: String) {
        let _ = Keys::parse(&text);
    }
}
