//! Changes of rows that came with events which the disk refused: they are made as soon as it takes writes again.

use super::rows::RowChange;

/// Changes kept at most.
const DEFERRED_MAX: usize = 4096;

/// In the order in which they were asked for; what a later change makes void is left out.
#[derive(Default)]
pub(super) struct Deferred {
    changes: Vec<RowChange>,
    /// Changes lost at the bound.
    cut: u64,
}

impl Deferred {
    pub(super) fn changes(&self) -> &[RowChange] {
        &self.changes
    }

    pub(super) fn push(&mut self, change: RowChange) {
        if let RowChange::Many(changes) = change {
            return changes.into_iter().for_each(|change| self.push(change));
        }
        let earlier = self.changes.iter().position(|earlier| earlier.is_undone_by(&change));
        match earlier.filter(|_| change.hangs_together()) {
            // In its place: what hangs on a row comes after it.
            Some(at) => self.changes[at] = change,
            None => {
                self.changes.retain(|earlier| !earlier.is_undone_by(&change));
                self.changes.push(change);
            }
        }
        if self.changes.len() > DEFERRED_MAX {
            self.lose_one();
        }
    }

    /// What took how long is the smallest loss, then a session that can't be restored, then the oldest of anything; but a
    /// stream without its row would take no event any more.
    fn lose_one(&mut self) {
        let of = |wanted: fn(&RowChange) -> bool| self.changes.iter().position(wanted);
        let least = of(|change| matches!(change, RowChange::PutSpan(_) | RowChange::PutFsEdit(..)))
            .or_else(|| of(|change| matches!(change, RowChange::PutAcpSession { .. })))
            .or_else(|| of(|change| !matches!(change, RowChange::PutStream { .. })));
        let lost = self.changes.remove(least.unwrap_or(0));
        if self.cut == 0 {
            tracing::error!(
                lost = lost.kind(),
                max = DEFERRED_MAX,
                "too many changes wait for the disk: the oldest are lost from here on"
            );
        }
        self.cut += 1;
    }

    /// They are in the file now.
    pub(super) fn made(&mut self) {
        if self.cut > 0 {
            tracing::error!(lost = self.cut, "changes of rows were lost while the disk took no writes");
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{AcpSessionRow, SessionRow, TurnRow};

    fn session(id: &str, params: &str) -> RowChange {
        let session = AcpSessionRow {
            session_id: id.into(),
            agent_session_id: id.into(),
            params: params.into(),
            settings: "{}".into(),
            owes_words: false,
        };
        RowChange::PutAcpSession { server_id: "s".into(), instance: "i".into(), session, forget: None }
    }

    #[test]
    fn a_later_change_of_the_same_thing_replaces_the_earlier_one() {
        let mut deferred = Deferred::default();
        for change in [session("a", "1"), session("b", "1"), session("a", "2")] {
            deferred.push(change);
        }
        let left: Vec<_> = deferred
            .changes()
            .iter()
            .map(|change| match change {
                RowChange::PutAcpSession { session, .. } => (session.session_id.as_str(), session.params.as_str()),
                _ => ("", ""),
            })
            .collect();
        assert_eq!(left, [("b", "1"), ("a", "2")]);
        deferred.push(RowChange::DeleteAcpServer { server_id: "s".into(), instance: "i".into(), keep_streams: 1 });
        assert_eq!(deferred.changes().len(), 1, "a deletion leaves nothing of what came before");
    }

    #[test]
    fn rows_stay_before_those_that_hang_on_them_and_streams_stay() {
        let session = |doc: &str| {
            let row = SessionRow {
                id: "s".into(),
                server_id: String::new(),
                acp_session_id: String::new(),
                agent: String::new(),
                cwd: String::new(),
                title: None,
                created_at_ms: 0,
                updated_at_ms: 0,
                closed_at_ms: None,
                idempotency: None,
                doc: doc.into(),
            };
            RowChange::PutSession(Box::new(row))
        };
        let turn = |id: &str| {
            let (id, session_id) = (id.to_owned(), "s".to_owned());
            let row = TurnRow { id, session_id, number: 1, state: "queued".into(), idempotency: None, doc: "{}".into() };
            RowChange::PutTurn(Box::new(row))
        };
        let mut deferred = Deferred::default();
        deferred.push(RowChange::PutStream { row_id: 7, name: "session/s".into() });
        deferred.push(session("1"));
        deferred.push(RowChange::Many(vec![turn("t"), session("2")]));
        let kinds: Vec<_> = deferred.changes().iter().map(RowChange::kind).collect();
        assert_eq!(kinds, ["stream", "session", "turn"]);
        assert!(matches!(&deferred.changes()[1], RowChange::PutSession(row) if row.doc == "2"));
        (0..DEFERRED_MAX + 10).for_each(|number| deferred.push(turn(&number.to_string())));
        assert_eq!(deferred.changes().len(), DEFERRED_MAX);
        assert!(matches!(deferred.changes()[0], RowChange::PutStream { .. }), "the stream's row is not lost");
    }

    #[test]
    fn the_bound_holds_and_sessions_go_before_servers() {
        let mut deferred = Deferred::default();
        deferred.push(RowChange::SetInitialize {
            server_id: "s".into(),
            instance: "i".into(),
            params: "{}".into(),
            result: "{}".into(),
        });
        for number in 0..DEFERRED_MAX + 10 {
            deferred.push(session(&number.to_string(), "{}"));
        }
        assert_eq!((deferred.changes().len(), deferred.cut), (DEFERRED_MAX, 11));
        assert!(matches!(deferred.changes()[0], RowChange::SetInitialize { .. }));
    }
}
