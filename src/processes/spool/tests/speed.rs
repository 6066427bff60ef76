//! Rough figures; run with `cargo test --release -- --ignored --nocapture spool::tests::speed`.

use std::time::Instant;

use super::*;

const TOTAL: usize = 2 << 30;

fn report(what: &str, bytes: usize, since: Instant) {
    eprintln!("{what}: {:.0} MB/s", bytes as f64 / 1e6 / since.elapsed().as_secs_f64());
}

fn appended(dir: &Path, size: usize, bound: u64) -> Spool {
    let line = b"compiling something \x1b[32mok\x1b[0m 0123456789\n";
    let bytes: Vec<u8> = line.iter().copied().cycle().take(size).collect();
    let mut spool = Spool::create(dir, 1, bound);
    let total = TOTAL.min(size * 2_000_000);
    let started = Instant::now();
    for _ in 0..total / size {
        spool.append(Stream::Stdout, 0, &bytes);
    }
    report(&format!("append of {size} within {bound}"), total, started);
    assert!(!spool.index().end().degraded);
    spool
}

#[test]
#[ignore = "measures"]
fn figures() {
    let dir = tempfile::tempdir().unwrap();
    for (size, bound) in [(64, 10 << 20), (8192, 10 << 20), (65_536, 10 << 20), (65_536, 0), (65_536, 256 << 20)] {
        drop(appended(dir.path(), size, bound));
        remove(dir.path(), 1).unwrap();
    }
    let spool = appended(dir.path(), 65_536, 256 << 20);
    let started = Instant::now();
    let (mut reader, mut bytes) = (SpoolReader::new(spool.index()), 0);
    loop {
        let items = reader.read(256 * 1024).unwrap();
        if items.is_empty() {
            break;
        }
        bytes += items.iter().map(|item| if let Item::Entry(entry) = item { entry.bytes.len() } else { 0 }).sum::<usize>();
    }
    report("read", bytes, started);
    let started = Instant::now();
    let lines = Lines::new(SpoolReader::new(spool.index()), Streams::ALL).count();
    assert!(lines > 1000);
    report("lines", bytes, started);
    let started = Instant::now();
    let index = SpoolIndex::load(dir.path(), 1).unwrap();
    eprintln!("load: {:?}", started.elapsed());
    let started = Instant::now();
    SpoolReader::new(index).tail(100, Streams::ALL).unwrap();
    eprintln!("tail of 100: {:?}", started.elapsed());
}
