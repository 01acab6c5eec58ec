//! What attackers have tried on verifiers of JWTs, and what providers do by mistake.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::testing::{Keys, encode};
use super::*;
use crate::domain::Timestamp;

const ISSUER: &str = "https://idp.example.org";
const NOW: u64 = 1_800_000_000;
const CERTIFICATE: [u8; 32] = [7; 32];

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::generate);

fn rules() -> IssuerRules {
    IssuerRules {
        issuer: ISSUER.to_owned(),
        audience: "phi-vault".to_owned(),
        algorithms: ["ES256", "RS256", "EdDSA", "PS256"].map(str::to_owned).to_vec(),
        accept_jwt: false,
        max_auth_age: None,
        acr: Vec::new(),
        amr: Vec::new(),
        single_use: false,
        keys_max_age: Duration::from_hours(1),
        unknown_every: Duration::from_hours(1),
    }
}

fn header(algorithm: &str) -> Value {
    let kid = match algorithm {
        "ES256" => "ec",
        "EdDSA" => "ed",
        _ => "rsa",
    };
    json!({ "typ": "at+jwt", "alg": algorithm, "kid": kid })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "phi-vault", "sub": "00u1", "exp": NOW + 300, "iat": NOW - 5, "jti": "a1",
        "client_id": "vaultctl", "amr": ["hwk", "x-of-their-own"], "auth_time": NOW - 600, "acr": "high",
    })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name).unwrap();
    object
}

/// Verifies as the server does, with keys that are known already.
fn verify_by(
    rules: IssuerRules,
    token: String,
    certificate: Option<&[u8; 32]>,
) -> Result<Verified, TokenFault> {
    let issuer = Issuer::new(rules);
    issuer.put_keys(KeySet::parse(KEYS.set().to_string().as_bytes()).unwrap());
    // The first token under an unknown key has the keys asked for: nobody answers here.
    let issuers = Issuers::new(vec![Arc::new(issuer)]);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(issuers.verify(&AccessToken::new(token), Timestamp(NOW * 1_000_000), certificate))
}

fn verify(token: String) -> Result<Verified, TokenFault> {
    verify_by(rules(), token, None)
}

fn of_header(header: &Value) -> Result<Verified, TokenFault> {
    verify(KEYS.token("ES256", header, &claims()))
}

fn of_claims(claims: &Value) -> Result<Verified, TokenFault> {
    verify(KEYS.token("ES256", &header("ES256"), claims))
}

#[test]
fn a_good_token_of_each_algorithm_is_taken() {
    for algorithm in ["ES256", "RS256", "PS256", "EdDSA"] {
        let verified = verify(KEYS.token(algorithm, &header(algorithm), &claims())).unwrap();
        assert_eq!(verified.identity(), "oidc:https://idp.example.org#00u1", "{algorithm}");
        assert_eq!(verified.factors, ["oidc", "hwk"]);
        assert_eq!(verified.expires, Timestamp((NOW + 300) * 1_000_000));
    }
    let several = with(claims(), "aud", json!(["other", "phi-vault"]));
    assert!(of_claims(&several).is_ok());
    for kind in ["AT+JWT", "application/at+jwt"] {
        assert!(of_header(&with(header("ES256"), "typ", json!(kind))).is_ok(), "{kind}");
    }
    // Of no meaning to us, and so of none (RFC 7515 section 4).
    for name in ["x5t", "x5t#S256", "nonce"] {
        assert!(of_header(&with(header("ES256"), name, json!("abc"))).is_ok(), "{name}");
    }
}

#[test]
fn algorithms_are_those_configured_and_go_with_keys_of_their_kind() {
    let signed = |algorithm: &str| {
        let text = format!("{}.{}", encode(header(algorithm).to_string().as_bytes()), encode(b"{}"));
        text.replace(&encode(b"{}"), &encode(claims().to_string().as_bytes()))
    };
    for none in ["none", "None", "nOnE", "NONE", "", "HS256", "es256", "ES256 ", "ES256K", "RS1"] {
        for signature in [String::new(), encode(b"x"), encode(&[0; 64])] {
            let fault = verify(format!("{}.{signature}", signed(none))).unwrap_err();
            let wanted = if signature.is_empty() { TokenFault::Form } else { TokenFault::Algorithm };
            assert_eq!(fault, wanted, "{none:?}");
        }
    }
    // The public key as a shared secret.
    for secret in [KEYS.public_rsa(), KEYS.set().to_string().into_bytes()] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        mac.update(signed("HS256").as_bytes());
        let token = format!("{}.{}", signed("HS256"), encode(&mac.finalize().into_bytes()));
        assert_eq!(verify(token.clone()), Err(TokenFault::Algorithm));
        // Not even where somebody configured it.
        let careless = IssuerRules { algorithms: vec!["HS256".to_owned(), "none".to_owned()], ..rules() };
        assert_eq!(verify_by(careless, token, None), Err(TokenFault::Algorithm));
    }
    for (algorithm, kid) in
        [("ES256", "rsa"), ("RS256", "ec"), ("EdDSA", "ec"), ("PS256", "ed"), ("ES256", "ed")]
    {
        let header = with(header(algorithm), "kid", json!(kid));
        assert_eq!(
            verify(KEYS.token(algorithm, &header, &claims())),
            Err(TokenFault::Key),
            "{algorithm} {kid}"
        );
    }
    let only_es = IssuerRules { algorithms: vec!["ES256".to_owned()], ..rules() };
    let rsa = KEYS.token("RS256", &header("RS256"), &claims());
    assert_eq!(verify_by(only_es, rsa, None), Err(TokenFault::Algorithm));
    // Signed by one, said to be by the other.
    let mixed = KEYS.token("PS256", &header("RS256"), &claims());
    assert_eq!(verify(mixed), Err(TokenFault::Signature));
}

#[test]
fn a_key_that_says_what_it_is_for_is_for_nothing_else() {
    let mut set = KEYS.set();
    set["keys"][1]["alg"] = json!("PS256");
    let keys = KeySet::parse(set.to_string().as_bytes()).unwrap();
    assert!(keys.find("rsa", algorithm("PS256").unwrap()).is_ok());
    assert!(keys.find("rsa", algorithm("RS256").unwrap()).is_err());
    for (name, value) in [
        ("use", json!("enc")),
        ("use", json!(1)),
        ("key_ops", json!(["sign"])),
        ("kid", json!("")),
        ("alg", json!(1)),
    ] {
        let mut set = KEYS.set();
        set["keys"][1][name] = value;
        assert_eq!(KeySet::parse(set.to_string().as_bytes()).unwrap().len(), 2, "{name}");
    }
    // Two keys of one name: it can't be told which is meant.
    let mut twice = KEYS.set();
    twice["keys"][1]["kid"] = json!("ec");
    let other = Keys::generate().set()["keys"][0].clone();
    twice["keys"].as_array_mut().unwrap().push(other);
    let keys = KeySet::parse(twice.to_string().as_bytes()).unwrap();
    assert!(keys.find("ec", algorithm("ES256").unwrap()).is_err());
    assert!(keys.find("ec", algorithm("RS256").unwrap()).is_ok());
}

#[test]
fn a_set_of_keys_holds_keys_that_can_be_used() {
    let secret = json!({ "keys": [{ "kty": "oct", "kid": "a", "k": encode(&[1; 32]) }] });
    let weak = json!({ "keys": [{ "kty": "RSA", "kid": "a", "n": encode(&[0xff; 128]), "e": "AQAB" }] });
    let short = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "a", "x": "AQ", "y": "AQ" }] });
    for (bad, why) in [
        (secret.to_string(), BadKeySet::Empty),
        (weak.to_string(), BadKeySet::Empty),
        (short.to_string(), BadKeySet::Empty),
        ("{\"keys\":[]}".to_owned(), BadKeySet::Empty),
        ("<html>".to_owned(), BadKeySet::Malformed),
        ("{}".to_owned(), BadKeySet::Malformed),
        (KEYS.set().to_string().replacen("\"kid\"", "\"kid\":\"x\",\"kid\"", 1), BadKeySet::Malformed),
        (" ".repeat(MAX_SET + 1), BadKeySet::TooLarge),
    ] {
        assert_eq!(KeySet::parse(bad.as_bytes()).err(), Some(why), "{}", &bad[..bad.len().min(80)]);
    }
}

#[test]
fn a_set_may_be_so_large_and_have_so_many_keys() {
    let whole = |len: usize| {
        let set = KEYS.set().to_string();
        set.clone() + &" ".repeat(len - set.len())
    };
    assert_eq!(KeySet::parse(whole(256 * 1024).as_bytes()).unwrap().len(), 3);
    assert_eq!(KeySet::parse(whole(256 * 1024 + 1).as_bytes()).err(), Some(BadKeySet::TooLarge));
    assert!(!KeySet::parse(whole(9_000).as_bytes()).unwrap().is_empty());
    assert!(KeySet::default().is_empty());
    // Those beyond are not looked at, whether they can be used or not.
    let of_no_use = json!({ "kty": "oct", "kid": "a" });
    let mut keys = vec![of_no_use; 63];
    keys.extend(KEYS.set()["keys"].as_array().unwrap().clone());
    let keys = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_key_has_numbers_of_the_length_of_its_kind() {
    let set = KEYS.set();
    let [ec, rsa, ed] = [0, 1, 2].map(|n| set["keys"][n].clone());
    let is_taken = |key: &Value| KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).is_ok();
    for key in [&ec, &rsa, &ed] {
        assert!(is_taken(key), "{key}");
        assert!(is_taken(&with(key.clone(), "kid", json!("k".repeat(256)))));
        assert!(!is_taken(&with(key.clone(), "kid", json!("k".repeat(257)))));
        assert!(!is_taken(&with(key.clone(), "kty", json!("oct"))));
    }
    let bytes = |len: usize| json!(encode(&vec![0xff; len]));
    for (key, name, good, bad) in [
        // Of the curve, so that no two spellings are one key; RSA of 2048 to 8192 bits, its exponent of at most 64.
        (&ec, "x", ec["x"].clone(), vec![bytes(31), bytes(33), bytes(48)]),
        (&ec, "y", ec["y"].clone(), vec![bytes(31), bytes(33), bytes(48)]),
        (&ed, "x", ed["x"].clone(), vec![bytes(31), bytes(33)]),
        (&rsa, "n", bytes(256), vec![bytes(0), bytes(255), bytes(1025)]),
        (&rsa, "n", bytes(1024), vec![]),
        (&rsa, "e", bytes(1), vec![bytes(0), bytes(9)]),
        (&rsa, "e", bytes(8), vec![]),
    ] {
        assert!(is_taken(&with(key.clone(), name, good)), "{key} {name}");
        for bad in bad {
            assert!(!is_taken(&with(key.clone(), name, bad.clone())), "{key} {name} {bad}");
        }
    }
    for curve in ["P-384", "P-521", "secp256k1", "Ed25519"] {
        assert!(!is_taken(&with(ec.clone(), "crv", json!(curve))), "{curve}");
    }
    for curve in ["P-256", "X25519", "Ed448"] {
        assert!(!is_taken(&with(ed.clone(), "crv", json!(curve))), "{curve}");
    }
    // What it is for may be said in both ways.
    for (name, value) in
        [("use", json!("sig")), ("key_ops", json!(["verify"])), ("key_ops", json!(["sign", "verify"]))]
    {
        assert!(is_taken(&with(rsa.clone(), name, value)));
    }
}

#[test]
fn a_token_has_at_most_sixteen_kibibytes() {
    // Three bytes are four characters: with one or another byte in the header all lengths can be had.
    let sized = |nonce: usize, filler: usize| {
        let header = with(header("ES256"), "nonce", json!("n".repeat(nonce)));
        KEYS.token("ES256", &header, &with(claims(), "filler", json!("x".repeat(filler))))
    };
    let longest = |len: usize| {
        let mut tokens = (0..4).flat_map(|nonce| (11_500..12_000).map(move |filler| (nonce, filler)));
        let begin = sized(0, 0).len();
        let near = move |filler: usize| begin + filler * 4 / 3;
        let found = tokens.find_map(|(nonce, filler)| {
            let token = (near(filler).abs_diff(len) < 12).then(|| sized(nonce, filler));
            token.filter(|token| token.len() == len)
        });
        found.unwrap()
    };
    assert!(verify(longest(16 * 1024)).is_ok());
    assert_eq!(verify(longest(16 * 1024 + 1)), Err(TokenFault::TooLarge));
}

#[test]
fn a_token_is_known_in_the_log_by_its_hash() {
    let fingerprint = |text: &str| AccessToken::new(text.to_owned()).fingerprint();
    assert_eq!(fingerprint("abc")[..4], [0xba, 0x78, 0x16, 0xbf], "SHA-256, FIPS 180-2 B.1");
    assert_ne!(fingerprint("abd"), fingerprint("abc"));
    let nameless = KEYS.token("ES256", &header("ES256"), &without(claims(), "jti"));
    assert_eq!(verify(nameless.clone()).unwrap().id, fingerprint(&nameless), "one without an id is itself");
}

#[test]
fn the_causes_in_the_log_are_what_they_always_were() {
    use TokenFault as F;
    for (why, cause) in [
        (F::TooLarge, "token_too_large"),
        (F::Form, "token_form"),
        (F::Header, "token_header"),
        (F::Type, "token_type"),
        (F::Algorithm, "token_algorithm"),
        (F::Issuer, "token_issuer"),
        (F::KeyUnknown, "token_key_unknown"),
        (F::Key, "token_key"),
        (F::Signature, "token_signature"),
        (F::Audience, "token_audience"),
        (F::Times, "token_times"),
        (F::Expired, "token_expired"),
        (F::NotYet, "token_not_yet_valid"),
        (F::Subject, "token_subject"),
        (F::Id, "token_id"),
        (F::AuthTime, "token_auth_time"),
        (F::Factors, "token_factors"),
        (F::Bound, "token_bound"),
    ] {
        assert_eq!(why.as_str(), cause);
    }
}

#[test]
fn a_token_brings_no_keys_and_no_extensions() {
    let attacker = Keys::generate();
    let own = attacker.set()["keys"][0].clone();
    for (name, value) in [
        ("jwk", own),
        ("jku", json!("https://attacker.example/jwks")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
    ] {
        let header = with(header("ES256"), name, value);
        assert_eq!(verify(attacker.token("ES256", &header, &claims())), Err(TokenFault::Header), "{name}");
        assert_eq!(of_header(&header), Err(TokenFault::Header), "{name}, signed as it should be");
    }
    assert_eq!(verify(attacker.token("ES256", &header("ES256"), &claims())), Err(TokenFault::Signature));
}

#[test]
fn a_key_id_is_compared_and_nothing_else() {
    for kid in [
        json!("../../../../dev/null"),
        json!("x' UNION SELECT 'secret"),
        json!("ec\u{0}"),
        json!("EC"),
        json!("\u{0435}c"),
        json!("| touch /tmp/x"),
    ] {
        assert_eq!(
            of_header(&with(header("ES256"), "kid", kid.clone())),
            Err(TokenFault::KeyUnknown),
            "{kid}"
        );
    }
    assert_eq!(
        of_header(&with(header("ES256"), "kid", json!("k".repeat(256)))),
        Err(TokenFault::KeyUnknown),
        "the longest"
    );
    for kid in [json!(""), json!("k".repeat(257)), json!(1), json!(["ec"]), json!({ "a": "ec" }), json!(null)]
    {
        assert_eq!(of_header(&with(header("ES256"), "kid", kid.clone())), Err(TokenFault::Key), "{kid}");
    }
    assert_eq!(of_header(&without(header("ES256"), "kid")), Err(TokenFault::Key));
}

#[test]
fn only_access_tokens_are_access_tokens() {
    for kind in [json!("JWT"), json!("jwt"), json!("logout+jwt"), json!("dpop+jwt"), json!(""), json!(1)] {
        assert_eq!(of_header(&with(header("ES256"), "typ", kind.clone())), Err(TokenFault::Type), "{kind}");
    }
    assert_eq!(of_header(&without(header("ES256"), "typ")), Err(TokenFault::Type));
    let lenient = IssuerRules { accept_jwt: true, ..rules() };
    let token = |kind: &str| KEYS.token("ES256", &with(header("ES256"), "typ", json!(kind)), &claims());
    assert!(verify_by(lenient.clone(), token("JWT"), None).is_ok());
    assert_eq!(verify_by(lenient, token("logout+jwt"), None), Err(TokenFault::Type));
}

#[test]
fn issuer_audience_and_subject_are_what_they_must_be() {
    for issuer in [
        json!("https://idp.example.org/"),
        json!("https://IDP.example.org"),
        json!("https://idp.example.org.attacker.example"),
        json!("https://\u{0456}dp.example.org"),
        json!("https://idp.example.org "),
        json!(""),
        json!([ISSUER]),
        json!(1),
    ] {
        assert_eq!(of_claims(&with(claims(), "iss", issuer.clone())), Err(TokenFault::Issuer), "{issuer}");
    }
    assert_eq!(of_claims(&without(claims(), "iss")), Err(TokenFault::Issuer));
    for audience in [
        json!("phi-vault2"),
        json!("PHI-VAULT"),
        json!("phi-vault "),
        json!("phi\u{2010}vault"),
        json!(["other"]),
        json!([]),
        json!([["phi-vault"]]),
        json!(["phi-vault", 1]),
        json!({ "phi-vault": true }),
        json!(null),
    ] {
        assert_eq!(
            of_claims(&with(claims(), "aud", audience.clone())),
            Err(TokenFault::Audience),
            "{audience}"
        );
    }
    assert_eq!(of_claims(&without(claims(), "aud")), Err(TokenFault::Audience));
    for subject in [
        json!(""),
        json!("a".repeat(256)),
        json!("a b"),
        json!("\u{0430}dmin"),
        json!("a\n"),
        json!(1),
        json!(null),
    ] {
        assert_eq!(of_claims(&with(claims(), "sub", subject.clone())), Err(TokenFault::Subject), "{subject}");
    }
    assert_eq!(of_claims(&without(claims(), "sub")), Err(TokenFault::Subject));
    assert!(of_claims(&with(claims(), "sub", json!("a".repeat(255)))).is_ok());
}

#[test]
fn times_are_whole_numbers_and_hold() {
    for name in ["exp", "nbf", "iat", "auth_time"] {
        for bad in [
            json!((NOW + 300).to_string()),
            json!(1.8e9),
            json!(-1),
            json!(1e30),
            json!(u64::MAX),
            json!(null),
            json!(true),
            json!([NOW]),
        ] {
            assert_eq!(of_claims(&with(claims(), name, bad.clone())), Err(TokenFault::Times), "{name} {bad}");
        }
    }
    assert_eq!(of_claims(&without(claims(), "exp")), Err(TokenFault::Times));
    let at = |name: &str, time: u64| of_claims(&with(claims(), name, json!(time)));
    assert_eq!(at("exp", NOW - 60), Err(TokenFault::Expired));
    assert!(at("exp", NOW - 59).is_ok(), "within the leeway");
    assert_eq!(at("exp", 0), Err(TokenFault::Expired));
    // The last one that is a number of microseconds.
    let last = u64::MAX / 1_000_000;
    assert_eq!(at("exp", last).unwrap().expires, Timestamp(last * 1_000_000));
    assert_eq!(at("exp", last + 1), Err(TokenFault::Times));
    for name in ["nbf", "iat", "auth_time"] {
        assert!(at(name, NOW + 60).is_ok(), "{name}");
        assert_eq!(at(name, NOW + 61), Err(TokenFault::NotYet), "{name}");
    }
}

#[test]
fn what_a_person_had_to_prove_can_be_asked_for() {
    let strict = IssuerRules {
        max_auth_age: Some(Duration::from_mins(15)),
        acr: vec!["high".to_owned(), "higher".to_owned()],
        amr: vec!["mfa".to_owned(), "hwk".to_owned()],
        ..rules()
    };
    let of = |claims: &Value| verify_by(strict.clone(), KEYS.token("ES256", &header("ES256"), claims), None);
    assert!(of(&claims()).is_ok());
    assert!(of(&with(claims(), "auth_time", json!(NOW - 960))).is_ok());
    assert_eq!(of(&with(claims(), "auth_time", json!(NOW - 961))), Err(TokenFault::AuthTime));
    assert_eq!(of(&without(claims(), "auth_time")), Err(TokenFault::AuthTime));
    for (name, bad) in [
        ("acr", json!("low")),
        ("acr", json!(["high"])),
        ("acr", json!("HIGH")),
        ("amr", json!(["pwd"])),
        ("amr", json!([])),
        ("amr", json!("hwk")),
        ("amr", json!(["hwk", 1])),
    ] {
        assert_eq!(of(&with(claims(), name, bad.clone())), Err(TokenFault::Factors), "{name} {bad}");
    }
    for name in ["acr", "amr"] {
        assert_eq!(of(&without(claims(), name)), Err(TokenFault::Factors), "{name}");
    }
    assert_eq!(of_claims(&without(claims(), "amr")).unwrap().factors, ["oidc"]);
}

#[test]
fn a_token_bound_to_a_certificate_needs_it() {
    let bound = |to: Value, shown: Option<&[u8; 32]>| {
        let token = KEYS.token("ES256", &header("ES256"), &with(claims(), "cnf", to));
        verify_by(rules(), token, shown).map(|verified| verified.certificate)
    };
    let to = || json!({ "x5t#S256": encode(&CERTIFICATE) });
    assert_eq!(bound(to(), Some(&CERTIFICATE)), Ok(Some(CERTIFICATE)));
    assert_eq!(bound(to(), Some(&[8; 32])), Err(TokenFault::Bound));
    assert_eq!(bound(to(), None), Err(TokenFault::Bound));
    for other in [
        json!({}),
        json!({ "jkt": encode(&CERTIFICATE) }),
        json!({ "x5t#S256": "" }),
        json!({ "x5t#S256": encode(&CERTIFICATE[..31]) }),
        json!({ "x5t#S256": format!("{}=", encode(&CERTIFICATE)) }),
        json!(encode(&CERTIFICATE)),
        json!(null),
    ] {
        assert_eq!(bound(other.clone(), Some(&CERTIFICATE)), Err(TokenFault::Bound), "{other}");
    }
}

#[test]
fn a_token_that_is_to_be_used_once_has_an_id() {
    let once = IssuerRules { single_use: true, ..rules() };
    let of = |claims: &Value| verify_by(once.clone(), KEYS.token("ES256", &header("ES256"), claims), None);
    let (first, second) = (of(&claims()).unwrap(), of(&with(claims(), "exp", json!(NOW + 301))).unwrap());
    assert_eq!(first.id, second.id, "it is the jti that counts");
    assert_ne!(first.id, of(&with(claims(), "jti", json!("a2"))).unwrap().id);
    for bad in [json!(""), json!(1), json!("j".repeat(256))] {
        assert_eq!(of(&with(claims(), "jti", bad)), Err(TokenFault::Id));
    }
    assert_eq!(of(&without(claims(), "jti")), Err(TokenFault::Id));
    assert!(of_claims(&without(claims(), "jti")).is_ok());
}

#[test]
fn a_name_stands_once() {
    let (good_header, good_claims) = (header("ES256").to_string(), claims().to_string());
    let doubled = |text: &str, more: &str| format!("{},{more}}}", &text[..text.len() - 1]);
    for more in ["\"alg\":\"none\"", "\"alg\":\"ES256\"", "\"\\u0061lg\":\"ES256\"", "\"kid\":\"rsa\""] {
        let token = KEYS.raw("ES256", &doubled(&good_header, more), &good_claims);
        assert_eq!(verify(token), Err(TokenFault::Form), "{more}");
    }
    for more in [
        "\"sub\":\"admin\"",
        "\"exp\":99999999999",
        "\"aud\":\"phi-vault\"",
        "\"\\u0069ss\":\"x\"",
        "\"cnf\":{\"a\":1,\"a\":2}",
    ] {
        let token = KEYS.raw("ES256", &good_header, &doubled(&good_claims, more));
        assert_eq!(verify(token), Err(TokenFault::Form), "{more}");
    }
}

#[test]
fn the_form_is_exact() {
    let good = KEYS.token("ES256", &header("ES256"), &claims());
    let [first, second, third] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    // 64 bytes end in a character of which four bits count: the other spellings of it are none.
    let last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let index = last.find(&third[85..]).unwrap();
    let respelled = format!("{first}.{second}.{}{}", &third[..85], &last[index + 1..index + 2]);
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{first}.{second}"),
        format!("{first}.{second}."),
        format!(".{second}.{third}"),
        format!("{first}..{third}"),
        format!("{good}."),
        format!("{good}.{third}"),
        format!("{first}.{second}.{third}.{third}.{third}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{first}=.{second}.{third}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{first}.{second}\t.{third}"),
        format!("{first}.{}.{third}", second.replacen('e', "\u{0435}", 1)),
        good.replace('-', "+").replace('_', "/") + "+",
        respelled,
        json!({ "payload": second, "signatures": [{ "protected": first, "signature": third }] }).to_string(),
        KEYS.raw("ES256", "[]", &claims().to_string()),
        KEYS.raw("ES256", &header("ES256").to_string(), "[]"),
        KEYS.raw("ES256", &header("ES256").to_string(), "\"eyJ\""),
        KEYS.raw("ES256", &header("ES256").to_string(), &good),
        KEYS.raw("ES256", &header("ES256").to_string(), &format!("{}x", claims())),
    ] {
        assert_eq!(verify(bad.clone()), Err(TokenFault::Form), "{}", &bad[..bad.len().min(120)]);
    }
    let filled = with(claims(), "filler", json!("x".repeat(1 << 20)));
    assert_eq!(of_claims(&filled), Err(TokenFault::TooLarge));
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(4000), "]".repeat(4000));
    assert_eq!(verify(KEYS.raw("ES256", &header("ES256").to_string(), &deep)), Err(TokenFault::Form));
}

#[test]
fn each_changed_bit_is_noticed() {
    for algorithm in ["ES256", "EdDSA", "RS256", "PS256"] {
        let good = KEYS.token(algorithm, &header(algorithm), &claims());
        for place in (0..good.len()).step_by(7) {
            let mut bad = good.clone().into_bytes();
            bad[place] = if bad[place] == b'A' { b'B' } else { b'A' };
            assert!(verify(String::from_utf8(bad).unwrap()).is_err(), "{algorithm} {place}");
        }
    }
    // A signature of zeros (CVE-2022-21449), and one in the other format of ECDSA.
    let signed = KEYS.token("ES256", &header("ES256"), &claims());
    let (signed, signature) = signed.rsplit_once('.').unwrap();
    let zeros = format!("{signed}.{}", encode(&[0; 64]));
    assert_eq!(verify(zeros), Err(TokenFault::Signature));
    assert_eq!(verify(format!("{signed}.{}", &signature[..84])), Err(TokenFault::Signature));
}

#[test]
fn keys_that_are_too_old_are_no_keys() {
    let aged = IssuerRules { keys_max_age: Duration::ZERO, ..rules() };
    let good = KEYS.token("ES256", &header("ES256"), &claims());
    assert_eq!(verify_by(aged, good, None), Err(TokenFault::KeyUnknown));
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_asked_for_once_and_then_not_for_a_while() {
    let new = Keys::generate();
    let issuer = Arc::new(Issuer::new(rules()));
    issuer.put_keys(KeySet::parse(KEYS.set().to_string().replace("\"ec\"", "\"old\"").as_bytes()).unwrap());
    let issuers = Issuers::new(vec![Arc::clone(&issuer)]);
    let asked = Arc::clone(&issuer);
    let set = new.set().to_string();
    let answer = tokio::spawn(async move {
        asked.wanted().await;
        asked.put_keys(KeySet::parse(set.as_bytes()).unwrap());
        asked.attempted();
    });
    let verify = async |token: String| {
        issuers.verify(&AccessToken::new(token), Timestamp(NOW * 1_000_000), None).await.map(drop)
    };
    // The clock stands still until everybody waits for it.
    let begun = tokio::time::Instant::now();
    assert_eq!(verify(new.token("ES256", &header("ES256"), &claims())).await, Ok(()));
    assert_eq!(begun.elapsed(), Duration::ZERO, "it went on as soon as there were keys");
    tokio::time::timeout(Duration::from_secs(1), answer).await.expect("keys were asked for").unwrap();
    let strange = with(header("ES256"), "kid", json!("yet another"));
    let begun = tokio::time::Instant::now();
    assert_eq!(verify(new.token("ES256", &strange, &claims())).await, Err(TokenFault::KeyUnknown));
    assert_eq!(begun.elapsed(), Duration::ZERO, "it waited for nobody");
    let nobody = tokio::time::timeout(Duration::from_millis(50), issuer.wanted()).await;
    assert!(nobody.is_err(), "it was asked for again");
}
