//! Reading files: types and codings as clients ask for them, and what tells one content from another.

use rand::RngExt as _;
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, Response};

use crate::fs_support::{Files, told};
use crate::support::Options;

async fn ask(files: &Files, method: Method, name: &str, headers: &[(&'static str, &str)]) -> Response {
    let of = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().expect("a header"));
    let headers: HeaderMap = headers.iter().map(of).collect();
    files.ask(method, "file", name).headers(headers).send().await.expect("an answer")
}

async fn get(files: &Files, name: &str, headers: &[(&'static str, &str)]) -> Response {
    ask(files, Method::GET, name, headers).await
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

/// Text that becomes smaller, but not small.
fn letters(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::rng().fill(&mut random[..]);
    random.iter_mut().for_each(|byte| *byte = b'a' + *byte % 16);
    String::from_utf8(random).expect("ASCII")
}

async fn decoded(answer: Response) -> Vec<u8> {
    use std::io::Read as _;
    let coding = header(&answer, "content-encoding").to_owned();
    let body = answer.bytes().await.expect("a body");
    let mut content = Vec::new();
    match coding.as_str() {
        "zstd" => content = zstd::decode_all(&body[..]).expect("zstd"),
        "gzip" => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut content).expect("gzip")),
        _ => content = body.to_vec(),
    }
    content
}

#[tokio::test]
async fn a_type_is_told_when_it_is_asked_for() {
    let files = Files::new();
    let octets = "application/octet-stream";
    for name in ["a.png", "a.html", "a.json", "a", "a.unknown"] {
        files.put(name, "x").await;
    }
    for (name, accept, told) in [
        ("a.png", "*/*", octets),
        ("a.png", "application/*, */*;q=0.1", octets),
        ("a.png", "image/*, */*;q=0.8", "image/png"),
        ("a.png", "image/png;q=0, */*", octets),
        ("a.png", "image/*;q=0.5, application/octet-stream", octets),
        ("a.html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("a.html", "application/json", octets),
        ("a.json", "application/json", "application/json"),
        ("a.json", "application/*", octets),
        ("a", "text/plain, image/*", octets),
        ("a.unknown", "text/plain, image/*", octets),
    ] {
        let answer = get(&files, name, &[("accept", accept)]).await;
        assert_eq!(header(&answer, "content-type"), told, "{name} for {accept}");
        assert!(header(&answer, "vary").contains("accept, accept-encoding"), "{name}");
        let safe = (header(&answer, "x-content-type-options"), header(&answer, "content-security-policy"));
        assert_eq!(safe, ("nosniff", "sandbox"));
        let head = ask(&files, Method::HEAD, name, &[("accept", accept)]).await;
        assert_eq!((header(&head, "content-type"), header(&head, "content-length")), (told, "1"), "{name} for {accept}");
    }
}

#[tokio::test]
async fn a_file_is_encoded_as_its_reader_likes() {
    let files = Files::new();
    // One that is sent at once, and one in pieces.
    for (name, size) in [("small", 20_000), ("large", 1_000_000)] {
        let content = letters(size);
        files.put(name, &content).await;
        let plain = ask(&files, Method::HEAD, name, &[]).await;
        assert_eq!((header(&plain, "content-encoding"), header(&plain, "content-length")), ("", size.to_string().as_str()));
        let tag = header(&plain, "etag").trim_end_matches('"').to_owned();
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate", ""),
            ("gzip, identity;q=0", "gzip"),
            ("gzip;q=0.5, zstd;q=0.2, *;q=0", "gzip"),
            ("zstd;q=0", ""),
            ("br", ""),
        ] {
            let answer = get(&files, name, &[("accept-encoding", accepted)]).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "content-encoding")), (200, coding), "{accepted}");
            let its = header(&answer, "etag").to_owned();
            let head = ask(&files, Method::HEAD, name, &[("accept-encoding", accepted)]).await;
            assert_eq!(header(&head, "content-encoding"), coding, "{accepted}");
            let expected = if coding.is_empty() { format!("{tag}\"") } else { format!("{tag}-{coding}\"") };
            assert_eq!(header(&head, "etag"), expected, "{accepted}");
            assert_eq!(decoded(answer).await, content.as_bytes(), "{accepted}");
            for known in [its, expected] {
                let again = get(&files, name, &[("accept-encoding", accepted), ("if-none-match", &known)]).await;
                assert_eq!((again.status().as_u16(), header(&again, "etag")), (304, known.as_str()), "{accepted}");
            }
        }
        let part = get(&files, name, &[("accept-encoding", "zstd"), ("range", "bytes=1000-2999")]).await;
        assert_eq!((part.status().as_u16(), header(&part, "content-encoding")), (206, ""));
        assert_eq!(part.text().await.expect("a text"), content[1000..3000]);
        let put = files.ask(Method::PUT, "file", name).header("if-match", format!("{tag}-zstd\"")).body("new");
        assert_eq!(told(put).await.0, 200, "the tag of an encoded content is as good");
    }
}

#[tokio::test]
async fn what_does_not_shrink_is_not_encoded() {
    let files = Files::new();
    files.put("short", &"a".repeat(1023)).await;
    files.put("empty", "").await;
    let random: Vec<u8> = (0..400_000).map(|_| rand::random()).collect();
    std::fs::write(files.path("random.txt"), &random[..50_000]).expect("a file");
    std::fs::write(files.path("random"), &random).expect("a file");
    for name in ["short", "empty", "random.txt", "random"] {
        let answer = get(&files, name, &[("accept-encoding", "zstd, gzip, identity;q=0")]).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-encoding")), (200, ""), "{name}");
        assert_eq!(answer.bytes().await.expect("a body"), std::fs::read(files.path(name)).expect("a file"));
    }
}

#[tokio::test]
async fn a_file_that_becomes_shorter_breaks_the_answer_off() {
    let files = Files::new();
    std::fs::write(files.path("f"), letters(32_000_000)).expect("a file");
    for coding in ["zstd", "gzip, identity;q=0", "identity"] {
        let content = std::fs::read(files.path("f")).expect("a file");
        let mut answer = get(&files, "f", &[("accept-encoding", coding)]).await;
        assert!(answer.chunk().await.expect("a piece").is_some());
        let file = std::fs::File::options().write(true).open(files.path("f")).expect("a file");
        file.set_len(16_000).expect("a shorter file");
        let ended = loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert!(!ended, "a part is not taken for the whole: {coding}");
        std::fs::write(files.path("f"), content).expect("a file");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_work() {
    let files = Files::with(&Options::default().env("SANDBOXD_FS_TRANSFERS_MAX", "1"));
    std::fs::write(files.path("f"), letters(32_000_000)).expect("a file");
    for coding in ["zstd", "identity", "zstd"] {
        let mut tries = 0;
        // Those who left before end soon.
        let mut answer = loop {
            let answer = get(&files, "f", &[("accept-encoding", coding)]).await;
            if answer.status() != 503 {
                break answer;
            }
            tries += 1;
            assert!(tries < 500, "the work goes on");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert!(answer.chunk().await.expect("a piece").is_some());
        assert_eq!(get(&files, "f", &[]).await.status(), 503, "one at a time: {coding}");
    }
}

#[tokio::test]
async fn a_tag_that_was_given_stays_good() {
    let files = Files::new();
    std::fs::write(files.path("f"), letters(1_000_000)).expect("a file");
    tokio::time::sleep(std::time::Duration::from_millis(80)).await; // until its hash may be remembered
    let first = get(&files, "f", &[]).await;
    let weak = header(&first, "etag").to_owned();
    assert!(weak.starts_with("W/"), "it was never read whole: {weak}");
    assert_eq!(first.bytes().await.expect("a body").len(), 1_000_000);
    let second = get(&files, "f", &[]).await;
    let strong = header(&second, "etag").to_owned();
    assert!(strong.starts_with('"'), "its hash was found on the way: {strong}");
    for known in [&weak, &strong] {
        let again = get(&files, "f", &[("if-none-match", known)]).await;
        assert_eq!((again.status().as_u16(), header(&again, "etag")), (304, known.as_str()));
    }
    std::fs::write(files.path("f"), letters(1_000_000)).expect("a file");
    for known in [&weak, &strong] {
        assert_eq!(get(&files, "f", &[("if-none-match", known)]).await.status(), 200);
    }
    let now = header(&ask(&files, Method::HEAD, "f", &[]).await, "etag").to_owned();
    assert!(now.starts_with('"') && now != strong, "HEAD reads it for its hash");
    assert_eq!(get(&files, "f", &[("if-match", &strong)]).await.status(), 412);
    assert_eq!(get(&files, "f", &[("if-match", &now), ("range", "bytes=0-9")]).await.status(), 206);
}

/// Their times and sizes say nothing.
#[tokio::test]
async fn what_the_kernel_makes_up_is_read_anew() {
    let files = Files::new();
    let uptime = async || {
        let url = files.server.url("/v1/fs/file?path=/proc/uptime");
        let answer = files.server.http.get(url).send().await.expect("an answer");
        let (etag, length) = (header(&answer, "etag").to_owned(), answer.content_length());
        let text = answer.text().await.expect("a text");
        assert_eq!(length, Some(text.len() as u64));
        (etag, text)
    };
    let first = uptime().await;
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    let second = uptime().await;
    assert!(first.0 != second.0 && first.1 != second.1, "{first:?} {second:?}");
}
