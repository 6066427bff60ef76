//! What callers ask of the room: HTTP routes, and whatever else takes typed requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;

use super::types::{
    Owner, ProcessConfig, ProcessInfo, ProcessSpec, RunResult, RunSpec, SearchResult, SearchSpec, SignalScope, TerminalSize,
    WaitResult, WaitSpec,
};
use super::{Attachment, Error, LogQuery, LogReader, Processes};
use crate::store::Stream;

#[allow(clippy::unused_async, missing_docs, unused_variables, clippy::missing_errors_doc)]
impl Processes {
    pub async fn create(&self, spec: ProcessSpec, owner: Owner) -> Result<ProcessInfo, Error> {
        Err(Error::Stopping)
    }
    pub async fn run(&self, spec: RunSpec) -> Result<RunResult, Error> {
        Err(Error::Stopping)
    }
    pub fn list(&self, owner: Option<Owner>, all: bool) -> Vec<ProcessInfo> {
        Vec::new()
    }
    pub fn get(&self, id: &str) -> Result<ProcessInfo, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn stop(&self, id: &str, wait: Duration) -> Result<ProcessInfo, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn kill(&self, id: &str, wait: Duration) -> Result<ProcessInfo, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn signal(&self, id: &str, signal: Signal, scope: SignalScope) -> Result<usize, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn input(&self, id: &str, bytes: Bytes) -> Result<usize, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn close_stdin(&self, id: &str) -> Result<(), Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn resize(&self, id: &str, size: TerminalSize) -> Result<(), Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn logs(&self, id: &str, query: LogQuery) -> Result<LogReader, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn attach(&self, id: &str) -> Result<Attachment, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn search(&self, id: &str, spec: SearchSpec) -> Result<SearchResult, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub async fn wait(&self, id: &str, spec: WaitSpec) -> Result<WaitResult, Error> {
        Err(Error::NotFound { id: id.to_owned() })
    }
    pub fn config(&self) -> ProcessConfig {
        unreachable!("comes next")
    }
    pub fn set_config(&self, config: ProcessConfig) -> Result<ProcessConfig, Error> {
        Ok(config)
    }
    pub fn events(&self) -> Arc<Stream> {
        unreachable!("comes next")
    }
}
