//! What every room uses: ids, the clock, owned tasks, small file operations, HTTP clients, taking secrets out. It knows no
//! other room.

pub mod clock;
pub mod files;
pub mod http_client;
pub mod ids;
pub mod keyed;
pub mod manifests;
pub mod raw_json;
pub mod redact;
pub(crate) mod sys;

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Keeps a timer near for as long as it runs.
///
/// Whoever starts a timer that ends before all others wakes the thread that sleeps until the next one, and nearly
/// every request starts a timer of some seconds. With one that always ends sooner, none of those wakes anybody.
pub fn keep_a_timer_near() -> JoinHandle<()> {
    spawn_owned("timer", async {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    })
}

/// Starts a task that has a name; a panic inside is logged with it and ends only that task.
///
/// Dropping the handle detaches the task: whoever needs its end awaits the handle.
#[allow(clippy::disallowed_methods)] // the one place that may call tokio::spawn
pub fn spawn_owned<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(TASK.scope(name, future).instrument(tracing::info_span!(parent: None, "task", name)))
}

tokio::task_local! {
    static TASK: &'static str;
}

/// The name of the task that runs on this thread right now, where it has one.
pub fn task_name() -> Option<&'static str> {
    TASK.try_with(|name| *name).ok()
}
