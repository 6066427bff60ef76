//! Random histories: whoever follows the changes has what is there.

use std::fs;

use proptest::prelude::*;

use super::{ROOT, World};

/// Something that is done to files.
#[derive(Debug, Clone)]
enum Step {
    Write(String, u8),
    MakeDirectory(String),
    Remove(String),
    Rename(String, String),
    Link(String, String),
    /// The kernel's events are handed on.
    Note,
    /// And changes are told.
    Flush,
    /// Everything is compared.
    Rescan,
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (name(), any::<u8>()).prop_map(|(name, text)| Step::Write(name, text)),
        4 => name().prop_map(Step::MakeDirectory),
        2 => name().prop_map(Step::Remove),
        6 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (name(), name()).prop_map(|(from, to)| Step::Link(from, to)),
        2 => Just(Step::Note),
        2 => Just(Step::Flush),
        1 => Just(Step::Rescan),
    ]
}

fn take(w: &mut World, step: &Step) {
    // What can't be done isn't done: names are random.
    match step {
        Step::Write(name, text) => drop(fs::write(w.path(name), [*text; 3])),
        Step::MakeDirectory(name) => drop(fs::create_dir(w.path(name))),
        Step::Remove(name) if w.path(name).is_dir() => drop(fs::remove_dir_all(w.path(name))),
        Step::Remove(name) => drop(fs::remove_file(w.path(name))),
        Step::Rename(from, to) => drop(fs::rename(w.path(from), w.path(to))),
        Step::Link(from, to) => drop(fs::hard_link(w.path(from), w.path(to))),
        Step::Note => drop(w.note()),
        Step::Flush => drop(w.flush()),
        Step::Rescan => drop(w.tree.rescan(ROOT, &mut w.kernel)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn who_follows_the_changes_has_what_is_there(steps in prop::collection::vec(step(), 1..60)) {
        let mut w = World::new(|_| {});
        for step in &steps {
            take(&mut w, step);
        }
        w.flush();
        w.flush(); // what was gone before its event came
        w.assert_true();
    }
}
