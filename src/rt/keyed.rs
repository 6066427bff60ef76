//! One at a time per key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Locks by key; a key that nobody uses costs nothing.
#[derive(Default)]
pub struct Keyed(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Keyed {
    /// Waits for those who came before with this key. Cancel safe.
    pub async fn enter(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner); // a map is whole after each change
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}
