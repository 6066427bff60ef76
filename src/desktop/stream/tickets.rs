//! Tickets: leave to watch or to control one desktop, for a short time.
//!
//! A ticket is what it allows, as JSON, and a signature (HMAC-SHA-256, RFC 2104), both in base64url. Nothing has to be kept of it,
//! and it is good for the next server, too; only the numbers of those that were taken back are kept until they would be over.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::desktop::home::Home;

/// Where the key is, in the desktop's directory.
const KEY_FILE: &str = "stream-key.json";
/// Where the numbers of tickets are that were taken back.
const REVOKED_FILE: &str = "stream-revoked.json";
const KEY_BYTES: usize = 32;
/// Tickets that were taken back and aren't over yet; above it, the one that ends first is forgotten.
const REVOKED_MAX: usize = 1_000;

/// What a viewer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ViewerMode {
    /// Only watch.
    View,
    /// Watch, and use pointer, keyboard and clipboard.
    Control,
}

/// What a ticket allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// Its number; those that come of it have the same.
    pub(super) id: String,
    pub(super) mode: ViewerMode,
    /// Who it is for, for the list of viewers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The desktop, by the time when it was started (Unix milliseconds).
    pub(super) desktop: i64,
    /// Unix milliseconds.
    pub(super) expires_at_ms: i64,
}

/// Signs and reads tickets. A cheap handle.
#[derive(Clone)]
pub(super) struct Tickets {
    inner: Arc<Inner>,
}

struct Inner {
    key: hmac::Key,
    home: Option<Home>,
    /// By number: when each would be over.
    revoked: Mutex<BTreeMap<String, i64>>,
}

impl Tickets {
    /// With the key of this place, made if it isn't there. Blocks.
    ///
    /// # Errors
    /// It can't be kept.
    pub(super) fn open(home: Option<&Home>) -> io::Result<Self> {
        let kept = home.and_then(|home| home.kept::<String>(KEY_FILE));
        let kept = kept.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).filter(|key| key.len() == KEY_BYTES);
        let key = match kept {
            Some(key) => key,
            None => {
                let key: [u8; KEY_BYTES] = rand::random();
                if let Some(home) = home {
                    home.place_secret(KEY_FILE, &serde_json::to_vec(&URL_SAFE_NO_PAD.encode(key))?)?;
                }
                key.to_vec()
            }
        };
        let revoked = home.and_then(|home| home.kept(REVOKED_FILE)).unwrap_or_default();
        let inner = Inner { key: hmac::Key::new(hmac::HMAC_SHA256, &key), home: home.cloned(), revoked: Mutex::new(revoked) };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) fn sign(&self, claims: &Claims) -> String {
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap_or_default());
        let signature = hmac::sign(&self.inner.key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What a ticket allows now, on this desktop.
    ///
    /// # Errors
    /// Why it allows nothing.
    pub(super) fn read(&self, ticket: &str, desktop: i64, now_ms: i64) -> Result<Claims, &'static str> {
        const FORGED: &str = "the ticket isn't one of this server's";
        let (text, signature) = ticket.split_once('.').ok_or(FORGED)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| FORGED)?;
        hmac::verify(&self.inner.key, text.as_bytes(), &signature).map_err(|_| FORGED)?;
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| FORGED)?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|_| FORGED)?;
        if claims.expires_at_ms <= now_ms {
            return Err("the ticket is over: ask for another one");
        }
        if claims.desktop != desktop {
            return Err("the ticket is for a desktop that was stopped: ask for another one");
        }
        if self.revoked().contains_key(&claims.id) {
            return Err("the ticket was taken back");
        }
        Ok(claims)
    }

    /// Takes a ticket back, with all that came of it, which are over by `until_ms`. Blocks.
    pub(super) fn revoke(&self, id: &str, until_ms: i64, now_ms: i64) {
        let mut revoked = self.revoked();
        revoked.retain(|_, until_ms| *until_ms > now_ms);
        revoked.insert(id.to_owned(), until_ms);
        if revoked.len() > REVOKED_MAX
            && let Some(first) = revoked.iter().min_by_key(|(_, until_ms)| **until_ms).map(|(id, _)| id.clone())
        {
            revoked.remove(&first);
        }
        if let Some(home) = &self.inner.home {
            home.keep(REVOKED_FILE, Some(&*revoked));
        }
    }

    fn revoked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, i64>> {
        self.inner.revoked.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims { id: "t1".into(), mode: ViewerMode::View, name: Some("é".into()), desktop: 7, expires_at_ms: 1_000 }
    }

    #[test]
    fn a_ticket_is_good_for_its_desktop_and_its_time() {
        let tickets = Tickets::open(None).expect("a key");
        let ticket = tickets.sign(&claims());
        assert_eq!(tickets.read(&ticket, 7, 999), Ok(claims()));
        assert!(tickets.read(&ticket, 7, 1_000).is_err_and(|why| why.contains("over")));
        assert!(tickets.read(&ticket, 8, 0).is_err_and(|why| why.contains("stopped")));
        tickets.revoke("t1", 1_000, 0);
        assert!(tickets.read(&ticket, 7, 999).is_err_and(|why| why.contains("taken back")));
    }

    #[test]
    fn nothing_of_a_ticket_can_be_changed() {
        let tickets = Tickets::open(None).expect("a key");
        let ticket = tickets.sign(&claims());
        let other = tickets.sign(&Claims { mode: ViewerMode::Control, ..claims() });
        let mixed = format!("{}.{}", other.split_once('.').expect("two").0, ticket.split_once('.').expect("two").1);
        for forged in ["", ".", "a.b", &mixed, &ticket[..ticket.len() - 2], &ticket[1..]] {
            assert!(tickets.read(forged, 7, 0).is_err(), "{forged}");
        }
        let stranger = Tickets::open(None).expect("another key");
        assert!(stranger.read(&ticket, 7, 0).is_err());
        proptest::proptest!(|(text: String)| { proptest::prop_assert!(tickets.read(&text, 7, 0).is_err()); });
    }

    #[test]
    fn the_next_server_knows_them_and_what_was_taken_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::at(dir.path().to_path_buf());
        let first = Tickets::open(Some(&home)).expect("a key");
        let (ticket, other) = (first.sign(&claims()), first.sign(&Claims { id: "t2".into(), ..claims() }));
        first.revoke("t1", 1_000, 0);
        let next = Tickets::open(Some(&home)).expect("the same key");
        assert!(next.read(&ticket, 7, 0).is_err());
        assert!(next.read(&other, 7, 0).is_ok());
    }
}
