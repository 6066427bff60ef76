//! Safe mode: the server died too often soon after its start, and says so for a while instead of dying again.
//!
//! Nothing is opened but the listening socket and the folder of crash reports. What the keeper keeps stays with it: agents
//! and processes live on and are taken up by the next normal start.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::signals::{Role, Signals};
use super::{ANSWER_TIME, Error, listen, restart, secrets};
use crate::config::{Config, as_duration};
use crate::crashes::Crashes;
use crate::http::{self, SafeMode};
use crate::keeper::{Keeper, Kept};
use crate::rt::clock::now_ms;
use crate::rt::redact::Redactor;
use crate::rt::spawn_owned;

/// Answers until a signal asks to stop. After `safe_mode_retry_ms`, or when that is asked for, the process ends so that the
/// keeper tries a normal start.
///
/// # Errors
/// [`Error`] when the address can't be had.
pub async fn run(config: Config, role: Role, keeper: Keeper, kept: Vec<Kept>) -> Result<(), Error> {
    let mut signals = Signals::new(role)?;
    let config = Arc::new(config);
    let mut kept = kept;
    keeper.listen();
    let listener = listen(&config, &keeper, &mut kept).await?;
    let secrets = secrets(&config).await;
    let crashes = crashes(&config, &keeper, &listener, &secrets)?;
    let wait = as_duration(config.bounds.safe_mode_retry_ms);
    let state = SafeMode {
        config: Arc::clone(&config),
        crashes,
        keeper: keeper.clone(),
        restart: CancellationToken::new(),
        retry_at_ms: now_ms() + i64::try_from(config.bounds.safe_mode_retry_ms).unwrap_or(i64::MAX),
        started_at_ms: now_ms(),
    };
    announce(&listener, &state)?;
    keeper.ready();
    let stop = CancellationToken::new();
    let (router, bounds) = (http::safe_router(state.clone()), config.bounds.clone());
    let server = spawn_owned("http", {
        let stop = stop.clone();
        async move { http::serve(listener, router, &bounds, stop).await }
    });
    let signal = tokio::select! {
        signal = signals.stop() => Some(signal),
        () = tokio::time::sleep(wait) => None,
        () = state.restart.cancelled() => None,
    };
    stop.cancel();
    let _ = tokio::time::timeout(ANSWER_TIME, server).await; // what isn't answered by then is cut
    match signal {
        Some(signal) => tracing::info!(signal, "stopping"),
        None => {
            tracing::info!("leaving safe mode: a normal start is tried");
            restart::leave();
        }
    }
    Ok(())
}

fn crashes(config: &Config, keeper: &Keeper, listener: &TcpListener, secrets: &[String]) -> Result<Crashes, Error> {
    let redactor = Redactor::new(secrets);
    let redact = move |json: String| {
        let mut json = json;
        if let Some(redactor) = &redactor {
            redactor.clean_json(&mut json);
        }
        json
    };
    let port = listener.local_addr()?.port();
    let crashes = Crashes::open(&config.dirs.data, port, &config.bounds, keeper, Arc::new(redact));
    crashes.keep_panics(Redactor::new(secrets));
    Ok(crashes)
}

fn announce(listener: &TcpListener, state: &SafeMode) -> Result<(), Error> {
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    let version = env!("CARGO_PKG_VERSION");
    let line =
        serde_json::json!({"event": "listening", "addr": address.to_string(), "url": url, "safeMode": true, "version": version});
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}"); // nobody reads it: the server works all the same
    let _ = stdout.flush();
    let retry = Duration::from_millis(state.retry_in_ms());
    tracing::error!(%address, reason = state.reason(), ?retry, "safe mode: nothing works but this explanation");
    Ok(())
}
