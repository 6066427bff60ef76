//! Waiting for one file. It is registered first and looked at second, so that nothing falls between; where nothing can be
//! registered, it is looked at again and again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use tokio::sync::{oneshot, watch};

use super::Watches;
use super::owner::Message;
use crate::fs::entry::Meta;
use crate::fs::{Error, Fs, Located, Reach, blocking};

/// With a watch, links and file systems that say nothing are still looked at so often;
const LOOK_PAUSE: Duration = Duration::from_millis(1000);
/// without one so often.
const POLL_PAUSE: Duration = Duration::from_millis(100);
/// In a directory where much happens, it is looked no more often than this.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// What of a file is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// It is there.
    Exists,
    /// It isn't there.
    Gone,
    /// It is another than at the beginning, or came or went.
    Changed,
    /// It is there, and nobody has changed it for so long.
    Stable(Duration),
}

/// How waiting ended.
#[derive(Debug, Clone)]
pub struct Waited {
    /// What was waited for is so; otherwise the time was over.
    pub met: bool,
    /// What the file is now, in JSON, when it is there.
    pub stat: Option<Vec<u8>>,
}

impl Fs {
    /// Waits for a file, for at most `time`. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Outside`], [`Error::Denied`], and the system's; that the file isn't there is none.
    pub async fn wait_for(&self, reach: &Reach, at: Located, what: WaitFor, time: Duration) -> Result<Waited, Error> {
        let deadline = tokio::time::Instant::now() + time;
        let mut eye = Eye { reach: reach.clone(), at, watches: Arc::clone(&self.inner.watches), near: None };
        let mut course = Course::default();
        loop {
            let now = eye.look().await?;
            if course.is_met(what, now, Instant::now()) {
                return self.waited(eye, true).await;
            }
            let pause = course.pause(what, Instant::now()).min(eye.pause());
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return self.waited(eye, false).await,
                () = tokio::time::sleep(pause) => {}
                () = eye.told() => {}
            }
        }
    }

    async fn waited(&self, eye: Eye, met: bool) -> Result<Waited, Error> {
        Ok(Waited { met, stat: self.stat(&eye.reach, eye.at, true).await.ok() })
    }
}

/// What was seen of the file so far. Pure.
#[derive(Default)]
struct Course {
    first: Option<Option<Meta>>,
    last: Option<Meta>,
    /// It is as it is since then.
    since: Option<Instant>,
}

impl Course {
    fn is_met(&mut self, what: WaitFor, now: Option<Meta>, at: Instant) -> bool {
        let first = *self.first.get_or_insert(now);
        if self.since.is_none() || !same(self.last, now) {
            self.since = Some(at);
        }
        self.last = now;
        match what {
            WaitFor::Exists => now.is_some(),
            WaitFor::Gone => now.is_none(),
            WaitFor::Changed => !same(first, now),
            WaitFor::Stable(quiet) => now.is_some() && self.since.is_some_and(|since| at.duration_since(since) >= quiet),
        }
    }

    /// How long it may be left alone.
    fn pause(&self, what: WaitFor, at: Instant) -> Duration {
        match (what, self.last, self.since) {
            (WaitFor::Stable(quiet), Some(_), Some(since)) => (since + quiet).saturating_duration_since(at),
            _ => Duration::MAX,
        }
    }
}

fn same(one: Option<Meta>, other: Option<Meta>) -> bool {
    let told_by = |meta: Meta| (meta.kind, meta.id, meta.size, meta.modified, meta.mode);
    one.map(told_by) == other.map(told_by)
}

/// Looks at a file, and is told of what happens near it.
struct Eye {
    reach: Reach,
    at: Located,
    watches: Arc<Watches>,
    near: Option<Near>,
}

/// The directory that is watched: the one that has the file, or the nearest above that is there.
struct Near {
    path: PathBuf,
    told: Option<watch::Receiver<()>>,
}

impl Eye {
    async fn look(&mut self) -> Result<Option<Meta>, Error> {
        loop {
            let (reach, at, watches) = (self.reach.clone(), self.at.clone(), Arc::clone(&self.watches));
            let known = self.near.as_ref().map(|near| near.path.clone());
            let near = blocking(move || near(&reach, &at, known.as_deref(), &watches)).await?;
            let Some((path, answer)) = near else { break };
            let told = match answer {
                Some(answer) => answer.await.map_err(|_| Error::Stopping)?,
                None => None,
            };
            self.near = Some(Near { path, told });
        }
        let (reach, at) = (self.reach.clone(), self.at.clone());
        blocking(move || look(&reach, &at)).await
    }

    fn pause(&self) -> Duration {
        let is_watched = self.near.as_ref().is_some_and(|near| near.told.is_some());
        if is_watched { LOOK_PAUSE } else { POLL_PAUSE }
    }

    /// Something happened near it. Cancel safe.
    async fn told(&mut self) {
        tokio::time::sleep(LEAST_PAUSE).await;
        let Some(told) = self.near.as_mut().and_then(|near| near.told.as_mut()) else { return std::future::pending().await };
        if told.changed().await.is_err() {
            self.near = None; // the directory is gone: another one may be there
        }
    }
}

type Answer = oneshot::Receiver<Option<watch::Receiver<()>>>;

/// Registers the nearest directory when it isn't the one that is `known`.
fn near(
    reach: &Reach,
    at: &Located,
    known: Option<&Path>,
    watches: &Watches,
) -> Result<Option<(PathBuf, Option<Answer>)>, Error> {
    let mut above = at.path().ancestors().skip(1);
    let opened = above.find_map(|path| {
        let opened = reach.open(&Located::from(path.to_path_buf()), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        opened.ok().map(|directory| (path.to_path_buf(), directory))
    });
    match opened {
        Some((path, _)) if known == Some(&*path) => Ok(None),
        Some((path, directory)) => {
            let (reply, answer) = oneshot::channel();
            watches.send(Message::Wait { directory, reply })?;
            Ok(Some((path, Some(answer))))
        }
        None if known.is_some_and(|known| known.as_os_str().is_empty()) => Ok(None),
        None => Ok(Some((PathBuf::new(), None))),
    }
}

fn look(reach: &Reach, at: &Located) -> Result<Option<Meta>, Error> {
    match reach.open(at, OFlags::PATH, Mode::empty()) {
        Ok(file) => Meta::of_open(file).map(Some).map_err(|errno| Error::of("look at", at.path(), errno)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(Error::Os { errno, .. }) if errno == rustix::io::Errno::NOTDIR.raw_os_error() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::entry::Kind;

    fn file(size: u64) -> Option<Meta> {
        let (modified, changed) = ((0, 0), (0, 0));
        Some(Meta { kind: Kind::File, size, mode: 0o644, uid: 0, gid: 0, links: 1, id: (1, 2), modified, changed })
    }

    /// What is so after each look, a second apart.
    fn met(what: WaitFor, looks: &[Option<Meta>]) -> Vec<bool> {
        let (mut course, start) = (Course::default(), Instant::now());
        (0..).zip(looks).map(|(n, look)| course.is_met(what, *look, start + Duration::from_secs(n))).collect()
    }

    #[test]
    fn what_is_waited_for_is_known_by_what_was_seen() {
        let looks = [None, file(1), file(2), file(2), file(2), None, None];
        assert_eq!(met(WaitFor::Exists, &looks), [false, true, true, true, true, false, false]);
        assert_eq!(met(WaitFor::Gone, &looks), [true, false, false, false, false, true, true]);
        assert_eq!(met(WaitFor::Changed, &looks), [false, true, true, true, true, false, false]);
        assert_eq!(met(WaitFor::Stable(Duration::from_secs(2)), &looks), [false, false, false, false, true, false, false]);
        assert_eq!(met(WaitFor::Changed, &looks[2..]), [false, false, false, true, true]);
    }

    #[test]
    fn a_file_that_came_to_rest_is_looked_at_in_time() {
        let (mut course, start) = (Course::default(), Instant::now());
        let what = WaitFor::Stable(Duration::from_secs(3));
        assert_eq!(course.pause(what, start), Duration::MAX);
        course.is_met(what, file(1), start);
        assert_eq!(course.pause(what, start + Duration::from_secs(1)), Duration::from_secs(2));
    }
}
