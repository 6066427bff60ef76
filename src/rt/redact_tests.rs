use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn redactor(secrets: &[&str]) -> Redactor {
    Redactor::new(secrets).expect("a secret")
}

fn redacted(secret: &str, text: &str) -> String {
    let clean = redactor(&[secret]).json(text.as_bytes());
    clean.map_or_else(|| text.to_owned(), |clean| String::from_utf8(clean).expect("UTF-8"))
}

#[test]
fn what_is_too_short_is_no_secret() {
    assert!(Redactor::new(["1234567", "", "   short   "]).is_none());
    assert!(Redactor::new(Vec::<String>::new()).is_none());
    assert!(!format!("{:?}", redactor(&["sk-12345678"])).contains("sk-"));
}

#[test]
fn secrets_go_however_they_are_escaped() {
    for (secret, text, clean) in [
        ("sk-12345678", r#"{"a":"key sk-12345678!","n":1.50}"#, r#"{"a":"key [redacted]!","n":1.50}"#),
        ("sk-12345678", r#"["sk-12345678sk-12345678"]"#, r#"["[redacted][redacted]"]"#),
        ("a/b/c/d/e/f", r#"["a\/b\/c/d/e/f"]"#, r#"["[redacted]"]"#),
        ("pass\"word\n1", r#"{"a":"x\npass\"word\n1\n"}"#, r#"{"a":"x\n[redacted]\n"}"#),
        ("pass\"word\n1", r#"{"a":"{\"b\":\"pass\\\"word\\n1\"}"}"#, r#"{"a":"{\"b\":\"[redacted]\"}"}"#),
        ("sk-12345678", r#"{"a":"{\"b\":\"sk-12345678\"}"}"#, r#"{"a":"{\"b\":\"[redacted]\"}"}"#),
        ("größer-als", r#"["gr\u00f6\u00DFer-als"]"#, r#"["[redacted]"]"#),
        ("😀smile-more", r#"["x\ud83d\ude00smile-more"]"#, r#"["x[redacted]"]"#),
        ("sk-12345678", r#"["\u0073\u006b-12345678"]"#, r#"["[redacted]"]"#),
        ("sk-12345678", r#"{"sk-12345678":true}"#, r#"{"[redacted]":true}"#),
        ("sk-12345678", r#"{"a":"sk-12345678"#, r#"{"a":"[redacted]"#),
    ] {
        assert_eq!(redacted(secret, text), clean, "{secret} in {text}");
    }
}

#[test]
fn structure_numbers_and_escapes_are_left_alone() {
    for (secret, text) in [
        ("\",\"type\":\"", r#"{"a":"b","type":"c"}"#),
        ("{\"jsonrpc\":\"2.0\"", r#"{"jsonrpc":"2.0","id":1}"#),
        ("12345678", r#"{"at":12345678}"#),
        ("nabcdefgh", r#"["\nabcdefgh"]"#), // a line break, then another text
        ("u0041bcdefg", r#"["\u0041bcdefg"]"#),
        ("sk-12345678", r#"["sk-1234567","\ud800","\u12"]"#),
        ("sk-12345678", "\"\\"),
    ] {
        assert_eq!(redacted(secret, text), text, "{secret}");
    }
    let inner = json!({"a": "x\",\"type\":\"y"}).to_string();
    assert_eq!(redacted("\",\"type\":\"", &inner), r#"{"a":"x[redacted]y"}"#, "within a string it is a secret");
}

#[test]
fn the_longest_secret_goes_whole_and_plain_texts_are_cleaned_too() {
    let redactor = redactor(&["abcdefgh", "abcdefgh-ijklmnop"]);
    assert_eq!(redactor.text("x abcdefgh-ijklmnop y abcdefgh").as_deref(), Some("x [redacted] y [redacted]"));
    assert_eq!(redactor.text("nothing"), None);
}

/// Every string of a JSON value.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(members) => members.iter().for_each(|(key, item)| {
            found.push(key.clone());
            strings(item, found);
        }),
        _ => {}
    }
}

fn json_value(secret: &'static str) -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        Just(secret.to_owned()),
        (any::<String>(), any::<String>()).prop_map(move |(before, after)| format!("{before}{secret}{after}")),
    ];
    let leaf = prop_oneof![text.clone().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(Value::Null)];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// The same JSON, every character of every string as `\uXXXX`.
fn all_escaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        let end = start + 1 + string_end(&rest.as_bytes()[start + 1..], 0);
        let meant: String = serde_json::from_str(&rest[start..=end]).expect("a string");
        out.push_str(&rest[..=start]);
        meant.encode_utf16().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        out.push('"');
        rest = &rest[end + 1..];
    }
    out + rest
}

proptest! {
    #[test]
    fn json_stays_json_and_holds_no_secret(
        (secret, value) in prop::sample::select(vec!["sk-12345678", "a\"b\\c/d\u{e9}\n12", "\",\"a\":\"bcd", "\\u0041\\u0042"])
            .prop_flat_map(|secret| (Just(secret), json_value(secret))),
    ) {
        let plain = value.to_string();
        for text in [plain.clone(), all_escaped(&plain), value.to_string().replace('/', "\\/")] {
            let clean: Value = serde_json::from_str(&redacted(secret, &text)).expect("JSON");
            let mut found = Vec::new();
            strings(&clean, &mut found);
            prop_assert!(found.iter().all(|text| !text.contains(secret)), "{clean}");
            let mut before = Vec::new();
            strings(&value, &mut before);
            if before.iter().all(|text| !text.contains(secret) && !text.contains(&escaped(secret))) {
                prop_assert_eq!(&clean, &value);
            }
        }
    }

    #[test]
    fn rubbish_does_no_harm(text in any::<Vec<u8>>()) {
        redactor(&["sk-12345678"]).json(&text);
        let mixed = [&text[..], b"\"sk-12345678\\"].concat();
        redactor(&["sk-12345678"]).json(&mixed);
    }
}

/// Not a check: `cargo test --release --lib redact -- --ignored --nocapture` tells how fast it is.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let secrets: Vec<String> = (0..12).map(|n| format!("sk-ant-{n:02}-0123456789abcdef0123456789abcdef")).collect();
    let redactor = Redactor::new(&secrets).expect("secrets");
    let line =
        |text: &str| json!({"jsonrpc": "2.0", "method": "session/update", "params": {"text": text.repeat(200)}}).to_string();
    let small =
        json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "text": "Hello there"}}).to_string();
    for (name, text) in [
        ("a small update", small),
        ("plain text", line("fn main of some thing and so on ")),
        ("code", line("let x = \"y\";\n\tcall(x)\\n")),
        ("with \\u", line("caf\u{1b}[0m and more of the same \n")),
    ] {
        let rounds = 200_000_000 / text.len();
        let started = std::time::Instant::now();
        let found = (0..rounds).filter(|_| redactor.json(std::hint::black_box(text.as_bytes())).is_some()).count();
        let seconds = started.elapsed().as_secs_f64();
        let (rate, each) = (rounds as f64 * text.len() as f64 / seconds / 1e9, seconds / rounds as f64 * 1e9);
        println!("{name}: {} bytes, {rate:.2} GB/s, {each:.0} ns each, {found} found", text.len());
    }
}
