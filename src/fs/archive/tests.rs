//! Archives that mean harm, and random ones: nothing outside the destination ever changes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::super::{Error, Fs, FsConfig, Located};
use super::{Extracted, Extraction};
use crate::config::Bounds;
use crate::store::Store;

/// A destination with things beside it that must stay as they are.
struct Place {
    home: tempfile::TempDir,
    fs: Fs,
    _state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with(Bounds::default())
    }

    fn with(bounds: Bounds) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(home.path().join("outside/d")).expect("a folder");
        std::fs::write(home.path().join("outside/canary"), "alive").expect("a file");
        std::fs::create_dir(home.path().join("dest")).expect("a folder");
        let state = tempfile::tempdir().expect("a folder");
        let file = state.path().join("log.db");
        let store = Store::open(&file, &file, &bounds).expect("a store");
        let (at, data) = (home.path().to_path_buf(), state.path().to_path_buf());
        let fs = Fs::new(FsConfig { home: at, roots: Vec::new(), data, store, bounds }).expect("the room");
        Self { home, fs, _state: state }
    }

    fn dest(&self) -> PathBuf {
        self.home.path().join("dest")
    }

    fn unpack(&self, archive: &[u8], how: Extraction) -> Result<Extracted, Error> {
        self.receive(archive, how, true)
    }

    /// With `is_whole` false, the client leaves.
    fn receive(&self, archive: &[u8], how: Extraction, is_whole: bool) -> Result<Extracted, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (sender, pieces) = mpsc::channel(1);
            let archive = Bytes::copy_from_slice(archive);
            let send = async move {
                for piece in archive.chunks(1000) {
                    if sender.send(Some(archive.slice_ref(piece))).await.is_err() {
                        return;
                    }
                }
                if is_whole {
                    let _ = sender.send(None).await;
                }
            };
            let extract = self.fs.extract(self.fs.reach(), Located::from(self.dest()), how, pieces);
            tokio::join!(send, extract).1
        })
    }

    fn failed(&self, archive: &[u8]) -> String {
        let extracted = self.unpack(archive, Extraction::default()).expect("a destination");
        extracted.failed.map(|failed| failed.error.to_string()).unwrap_or_default()
    }

    /// Everything beside the destination: names, contents, links, modes, times.
    fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let here = std::fs::read_dir(self.home.path()).expect("a folder").flatten().map(|entry| entry.path());
        let mut left: Vec<PathBuf> = here.filter(|path| *path != self.dest()).collect();
        while let Some(path) = left.pop() {
            let meta = path.symlink_metadata().expect("there");
            if meta.is_dir() {
                left.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
            }
            let content = std::fs::read_to_string(&path).unwrap_or_default();
            found.insert(path, format!("{content} {} {} {}", meta.mode(), meta.nlink(), meta.mtime_nsec()));
        }
        found
    }

    /// Links beneath the destination lead nowhere else, and nothing of ours is left there.
    fn assert_sound(&self) {
        let dest = self.dest().canonicalize().expect("there");
        let mut left = vec![dest.clone()];
        while let Some(path) = left.pop() {
            let Ok(meta) = path.symlink_metadata() else { continue };
            let name = path.file_name().unwrap_or_default().as_bytes();
            assert!(!name.starts_with(b".sandboxd-tmp_"), "{} was left", path.display());
            if meta.is_symlink() {
                assert!(path.canonicalize().map_or(true, |leads| leads.starts_with(&dest)), "{} leads out", path.display());
            } else if meta.is_dir() {
                let _ = std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700));
                left.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
            } else {
                assert!(meta.is_file(), "{} is neither file, directory nor link", path.display());
            }
        }
    }
}

/// One entry, byte for byte.
fn entry(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_mode(0o4755);
    header.set_mtime(1_600_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let padding = content.len().next_multiple_of(512) - content.len();
    [header.as_bytes(), content, &vec![0; padding]].concat()
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| rest + length.to_string().len() == *length).expect("a length");
        content.extend_from_slice(&[format!("{length} {key}=").as_bytes(), value, b"\n"].concat());
    }
    entry(b'x', b"pax", b"", &content)
}

#[test]
fn what_an_archive_holds_is_there_with_modes_and_times() {
    let place = Place::new();
    let entries = [
        entry(b'5', b"d/", b"", b""),
        entry(b'0', b"./d/file", b"", b"content"),
        entry(b'1', b"d/other", b"d/file", b""),
        entry(b'2', b"d/link", b"file", b""),
        pax(&[("path", &[b'n'; 200]), ("mtime", b"1234.5")]),
        entry(b'0', b"short", b"", b"long"),
        entry(b'0', b"odd\xff", b"", b""),
        entry(b'5', b".", b"", b""),
    ];
    let extracted = place.unpack(&archive(&entries), Extraction::default()).expect("a destination");
    assert!(extracted.failed.is_none(), "{:?}", extracted.failed);
    assert_eq!((extracted.entries, extracted.bytes, extracted.paths.len()), (6, 11, 6));
    assert_eq!(extracted.paths[1], place.dest().join("d/file"));
    let file = place.dest().join("d/other").metadata().expect("there");
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.nlink()), (0o755, 1_600_000_000, 2));
    assert_eq!(std::fs::read_to_string(place.dest().join("d/link")).expect("a link"), "content");
    let long = place.dest().join(String::from_utf8(vec![b'n'; 200]).expect("text")).metadata().expect("there");
    assert_eq!((long.mtime(), long.mtime_nsec()), (1234, 500_000_000));
    assert!(place.dest().join(std::ffi::OsStr::from_bytes(b"odd\xff")).exists());
    place.assert_sound();
}

#[test]
fn what_leads_out_is_refused() {
    let place = Place::new();
    symlink("../outside", place.dest().join("old")).expect("a link");
    std::fs::write(place.dest().join("mine"), "").expect("a file");
    let before = place.outside();
    for (entries, words) in [
        (vec![entry(b'0', b"../evil", b"", b"x")], "invalid relative path: ../evil"),
        (vec![entry(b'0', b"a/../b", b"", b"x")], "invalid relative path: a/../b"),
        (vec![entry(b'0', b"/abs", b"", b"x")], "invalid relative path: /abs"),
        (vec![entry(b'2', b"l", b"../outside", b"")], "leads out"),
        (vec![entry(b'2', b"l", b"/etc", b"")], "leads out"),
        (vec![entry(b'2', b"l", b"d", b""), entry(b'0', b"l/x", b"", b"x")], "through links"),
        (vec![entry(b'2', b"l", b"d", b""), entry(b'5', b"l/x", b"", b"")], "through links"),
        (vec![entry(b'0', b"old/evil", b"", b"x")], "through links"),
        (vec![entry(b'5', b"old", b"", b"")], "through links"),
        (vec![entry(b'1', b"h", b"../outside/canary", b"")], "hard link"),
        (vec![entry(b'1', b"h", b"/etc/hostname", b"")], "hard link"),
        (vec![entry(b'1', b"h", b"mine", b"")], "isn't a file of the archive"),
        (vec![entry(b'1', b"h", b"old/canary", b"")], "isn't a file of the archive"),
        (vec![entry(b'3', b"null", b"", b"")], "devices"),
        (vec![entry(b'6', b"fifo", b"", b"")], "FIFOs"),
        (vec![pax(&[("path", b"a"), ("path", b"b")]), entry(b'0', b"c", b"", b"")], "second"),
        (vec![pax(&[("size", b"5"), ("size", b"6")]), entry(b'0', b"c", b"", b"")], "second"),
    ] {
        let said = place.failed(&archive(&entries));
        assert!(said.contains(words), "{said:?} lacks {words:?}");
        assert_eq!(place.outside(), before, "{words}");
        assert_eq!(
            std::fs::read_dir(place.dest()).expect("a folder").flatten().filter(|entry| entry.file_name() == "null").count(),
            0
        );
    }
}

#[test]
fn an_entry_that_is_refused_can_be_left_out() {
    let place = Place::new();
    let entries = [
        entry(b'0', b"a", b"", b"1"),
        entry(b'0', b"../b", b"", b"2"),
        entry(b'6', b"f", b"", b""),
        entry(b'0', b"c", b"", b"3"),
    ];
    let extracted = place.unpack(&archive(&entries), Extraction { skips: true, ..Extraction::default() }).expect("a destination");
    assert!(extracted.failed.is_none());
    assert_eq!((extracted.entries, extracted.skipped_count), (2, 2));
    assert_eq!(extracted.skipped[0].name, "../b");
    assert_eq!(extracted.skipped[1].reason, "f: FIFOs aren't made");
}

/// A file that is all hole: nothing of it is in the archive.
fn hole(name: &[u8], bytes: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    let gnu = header.as_gnu_mut().expect("a GNU header");
    gnu.name[..name.len()].copy_from_slice(name);
    let number = |field: &mut [u8; 12], number: u64| {
        field[0] = 0x80; // in base 256
        field[4..].copy_from_slice(&number.to_be_bytes());
    };
    number(&mut gnu.sparse[0].offset, bytes);
    number(&mut gnu.sparse[0].numbytes, 0);
    number(&mut gnu.realsize, bytes);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn a_hole_that_is_refused_is_not_read() {
    let place = Place::new();
    let entries = [hole(b"../hole", u64::MAX / 4), entry(b'0', b"after", b"", b"x"), hole(b"hole", 100_000)];
    let extracted = place.unpack(&archive(&entries), Extraction { skips: true, ..Extraction::default() }).expect("a destination");
    assert!(extracted.failed.is_none(), "{:?}", extracted.failed);
    assert_eq!((extracted.entries, extracted.skipped_count), (2, 1));
    assert_eq!(std::fs::metadata(place.dest().join("hole")).expect("a file").len(), 100_000);
    let too_large = place.unpack(&archive(&[hole(b"hole", u64::MAX / 4)]), Extraction { skips: true, ..Extraction::default() });
    let failed = too_large.expect("a destination").failed.expect("it is too large");
    assert!(matches!(failed.error, Error::TooMuch { bound: "fs_archive_max_bytes", .. }), "{failed:?}");
}

#[test]
fn the_last_entry_with_a_name_wins() {
    let place = Place::new();
    let entries = [
        entry(b'2', b"a", b"b", b""),
        entry(b'0', b"a", b"", b"file"),
        entry(b'0', b"b", b"", b"old"),
        entry(b'0', b"b", b"", b"new"),
        entry(b'0', b"c", b"", b"file"),
        entry(b'2', b"c", b"b", b""),
    ];
    let extracted = place.unpack(&archive(&entries), Extraction::default()).expect("a destination");
    assert!(extracted.failed.is_none(), "{:?}", extracted.failed);
    let read = |name| std::fs::read_to_string(place.dest().join(name)).expect("a file");
    assert_eq!((read("a"), read("b"), read("c")), ("file".into(), "new".into(), "new".into()));
    assert!(place.dest().join("c").is_symlink());
}

#[test]
fn all_or_nothing() {
    let place = Place::new();
    let atomic = Extraction { atomic: true, ..Extraction::default() };
    let bad = archive(&[entry(b'0', b"a", b"", b"1"), entry(b'0', b"../b", b"", b"2")]);
    let extracted = place.unpack(&bad, atomic).expect("a destination");
    assert!(extracted.failed.is_some() && extracted.entries == 0);
    assert_eq!(std::fs::read_dir(place.dest()).expect("a folder").count(), 0);

    let good = archive(&[entry(b'0', b"a", b"", b"1")]);
    assert!(place.unpack(&good, atomic).expect("a destination").failed.is_none());
    let other = archive(&[entry(b'0', b"b", b"", b"2")]);
    assert!(matches!(place.unpack(&other, atomic), Err(Error::DestinationExists(_))));
    assert!(place.unpack(&other, Extraction { overwrite: true, ..atomic }).expect("a destination").failed.is_none());
    assert!(!place.dest().join("a").exists() && place.dest().join("b").exists());
    assert_eq!(std::fs::read_dir(place.home.path()).expect("a folder").count(), 2, "nothing is left beside it");
}

#[test]
fn bombs_go_off_elsewhere() {
    let bounds = Bounds { fs_archive_max_bytes: 1000, fs_archive_entries_max: 3, fs_archive_depth_max: 4, ..Bounds::default() };
    let place = Place::with(Bounds { fs_archive_pending_max_bytes: 40, ..bounds });
    let file = |name: &[u8], bytes: usize| entry(b'0', name, b"", &vec![b'x'; bytes]);
    for (entries, bound) in [
        (vec![file(b"a", 600), file(b"b", 600)], "fs_archive_max_bytes"),
        (vec![file(b"a", 0), file(b"b", 0), file(b"c", 0), file(b"d", 0)], "fs_archive_entries_max"),
        (vec![file(b"a/b/c/d/e", 0)], "fs_archive_depth_max"),
        (vec![entry(b'2', &[b'l'; 30], &[b't'; 30], b"")], "fs_archive_pending_max_bytes"),
        (vec![entry(b'L', b"x", b"", &vec![b'n'; 2 << 20]), file(b"a", 0)], "fs_archive_header_max_bytes"),
        (vec![entry(b'x', b"x", b"", &vec![b'n'; 2 << 20]), file(b"a", 0)], "fs_archive_header_max_bytes"),
        (vec![entry(b'g', b"x", b"", &vec![b'n'; 2 << 20]), file(b"a", 0)], "fs_archive_header_max_bytes"),
    ] {
        let said = place.failed(&archive(&entries));
        assert!(said.contains(bound), "{said:?} lacks {bound:?}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&entry(b'0', b"zeros", b"", &vec![0; 2 << 20])).expect("written");
    let place = Place::with(Bounds { fs_archive_ratio_free_bytes: 1 << 20, ..Bounds::default() });
    let said = place.failed(&gzip.finish().expect("finished"));
    assert!(said.contains("fs_archive_ratio_max"), "{said}");
}

#[test]
fn compressed_archives_are_told_by_their_first_bytes() {
    let plain = archive(&[entry(b'0', b"a", b"", b"1")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("written");
    for bytes in [gzip.finish().expect("finished"), zstd::encode_all(&plain[..], 1).expect("encoded")] {
        let place = Place::new();
        assert_eq!(place.failed(&bytes), "");
        assert_eq!(std::fs::read_to_string(place.dest().join("a")).expect("a file"), "1");
        let said = Place::new().failed(&bytes[..bytes.len() / 2]);
        assert!(said.contains("archive"), "{said:?}");
    }
    assert_eq!(Place::new().failed(b""), "");
    assert!(Place::new().failed(b"abc").contains("no tar archive"));
}

#[test]
fn what_breaks_off_leaves_no_half_file() {
    let whole = archive(&[entry(b'0', b"small", b"", &[b'x'; 3000]), entry(b'0', b"large", b"", &vec![b'y'; 300_000])]);
    for cut in [100, 512, 1000, 3600, 4096, 5000, 200_000] {
        let place = Place::new();
        let _ = place.unpack(&whole[..cut], Extraction::default()).expect("a destination");
        for entry in std::fs::read_dir(place.dest()).expect("a folder").flatten() {
            assert_eq!((entry.file_name(), entry.metadata().expect("there").len()), ("small".into(), 3000), "cut at {cut}");
        }
    }
}

#[test]
fn a_client_that_leaves_is_not_taken_for_the_end() {
    // Cut where an archive might end.
    let cut = entry(b'0', b"a", b"", b"1");
    let place = Place::new();
    assert!(place.receive(&cut, Extraction::default(), true).expect("a destination").failed.is_none());
    let failed = place.receive(&cut, Extraction::default(), false).expect("a destination").failed;
    assert!(matches!(failed.expect("an end").error, Error::BrokeOff(_)));
    let other = Place::new();
    let atomic = Extraction { atomic: true, ..Extraction::default() };
    assert!(other.receive(&cut, atomic, false).expect("a destination").failed.is_some());
    assert_eq!(std::fs::read_dir(other.dest()).expect("a folder").count(), 0);
    assert_eq!(std::fs::read_dir(other.home.path()).expect("a folder").count(), 2, "nothing is left beside it");
}

#[test]
fn directories_that_become_links_meanwhile_lead_nowhere() {
    let place = Place::new();
    std::fs::create_dir(place.dest().join("d")).expect("a folder");
    symlink("../outside", place.dest().join("other")).expect("a link");
    let entries: Vec<_> = (0..200).map(|at| entry(b'0', format!("d/{at}").as_bytes(), b"", b"x")).collect();
    let mixed: Vec<_> = entries.into_iter().flat_map(|entry_of| [entry_of, entry(b'0', b"e/x", b"", b"")]).collect();
    let bytes = archive(&mixed);
    let before = place.outside();
    let stop = AtomicBool::new(false);
    let (mut made, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            let (one, other) = (place.dest().join("d"), place.dest().join("other"));
            while !stop.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE); // always both there
            }
        });
        while made == 0 || refused == 0 {
            match place.unpack(&bytes, Extraction { skips: true, ..Extraction::default() }) {
                Ok(extracted) => (made, refused) = (made + extracted.entries, refused + extracted.skipped_count),
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(place.outside(), before);
}

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"a/b",
    b"a/b/c",
    b"l",
    b"l/x",
    b"m",
    b"m/../x",
    b"../outside/x",
    b"/tmp/x",
    b".",
    b"",
    b"a/",
    b"..",
    b"./l/canary",
];
const TARGETS: &[&[u8]] =
    &[b"a", b"..", b"../outside", b"../outside/canary", b"/etc", b"l", b"a/../..", b".", b"../l", b"m/x", b"", b"b"];

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let one = (
        prop::sample::select(b"0123567SLKxg\0V".to_vec()),
        prop::sample::select(NAMES),
        prop::sample::select(TARGETS),
        0..700_usize,
    );
    let entries =
        prop::collection::vec(one.prop_map(|(kind, name, link, size)| entry(kind, name, link, &vec![b'z'; size])), 1..12);
    entries.prop_map(|entries| archive(&entries))
}

/// Changes bytes; with `mends` the sums of headers fit again, so that what changed is looked at.
fn mutate(bytes: &mut [u8], changes: &[(prop::sample::Index, u8)], mends: bool) {
    for (at, to) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *to;
    }
    for block in bytes.chunks_mut(512).filter(|block| mends && block.len() == 512 && block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_archive_escapes(
        archive in hostile(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        mends in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        skips in any::<bool>(),
        atomic in any::<bool>(),
    ) {
        let mut bytes = archive;
        mutate(&mut bytes, &changes, mends);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let bounds = Bounds { fs_archive_max_bytes: 1 << 20, ..Bounds::default() };
        let place = Place::with(bounds);
        let before = place.outside();
        let _ = place.unpack(&bytes, Extraction { skips, atomic, overwrite: false });
        prop_assert_eq!(place.outside(), before);
        place.assert_sound();
    }

    #[test]
    fn random_headers_never_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 512), 1..6)) {
        let mut bytes = blocks.concat();
        for block in bytes.chunks_mut(512) {
            block[257..265].copy_from_slice(b"ustar  \0");
        }
        mutate(&mut bytes, &[], true);
        let place = Place::with(Bounds { fs_archive_max_bytes: 1 << 20, ..Bounds::default() });
        let before = place.outside();
        let _ = place.unpack(&bytes, Extraction { skips: true, ..Extraction::default() });
        prop_assert_eq!(place.outside(), before);
        place.assert_sound();
    }
}
