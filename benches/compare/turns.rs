//! The row about small turns: how soon one is taken in, and how soon its first word is seen.

use std::time::Instant;

use crate::Result;
use crate::lanes::Lanes;
use crate::marks::MarkReader;
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::session_api::{ACP_PATH, Api};
use crate::subject::{Server, Side};

const BLOCK: usize = 60;
const BLOCKS: usize = 5;

/// One side: a server with one session of the flood agent, and what was measured.
struct Lane {
    api: Api,
    /// As `/v1/acp` calls it.
    session: String,
    /// As `/v1/sessions` calls it; the reference has none.
    durable: Option<String>,
    turns: usize,
    submit: Vec<Vec<f64>>,
    acp: Vec<Vec<f64>>,
    sessions: Vec<Vec<f64>>,
    /// Held because dropping it ends the server.
    server: Server,
}

impl Lane {
    fn open(ctx: &Context, side: Side) -> Result<Self> {
        let server = ctx.start(side)?;
        ctx.solo.block_on(async {
            let mut api = Api::connect(server.addr).await?;
            api.initialize("amp").await?;
            let session = api.acp_session().await?;
            let durable = if side == Side::Ours { Some(api.newest().await?) } else { None };
            let (submit, acp, sessions) = (Vec::new(), Vec::new(), Vec::new());
            Ok(Self { api, session, durable, turns: 0, submit, acp, sessions, server })
        })
    }

    /// From sending a prompt through `/v1/acp` to its update on that server's stream. The first turn of a block is not
    /// counted: it takes the replay in.
    async fn run_acp(&mut self) -> Result<()> {
        let mut reader = MarkReader::open(self.server.addr, ACP_PATH).await?;
        let mut block = Vec::with_capacity(BLOCK);
        for _ in 0..=BLOCK {
            self.turns += 1;
            let text = format!("say {}", self.turns);
            let begin = Instant::now();
            let (done, seen) = tokio::join!(self.api.acp_prompt(&self.session, &text), reader.until(self.turns));
            done?;
            block.push(ms(seen? - begin));
        }
        block.remove(0);
        self.acp.push(block);
        Ok(())
    }

    /// From sending a message to `202`, and to its update on the session's stream.
    async fn run_sessions(&mut self) -> Result<()> {
        let Some(id) = self.durable.clone() else { return Ok(()) };
        let mut reader = MarkReader::open(self.server.addr, &format!("/v1/sessions/{id}/events")).await?;
        let (mut submit, mut first) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
        for _ in 0..=BLOCK {
            self.turns += 1;
            let text = format!("say {}", self.turns);
            let begin = Instant::now();
            let taken = async {
                let turn = self.api.submit(&id, &text).await?;
                Ok::<_, crate::Error>((turn, begin.elapsed()))
            };
            let (taken, seen) = tokio::join!(taken, reader.until(self.turns));
            let (turn, time) = taken?;
            submit.push(ms(time));
            first.push(ms(seen? - begin));
            self.api.wait_ended(&id, &turn).await?;
        }
        submit.remove(0);
        first.remove(0);
        self.submit.push(submit);
        self.sessions.push(first);
        Ok(())
    }
}

/// Turns one after another, each ended before the next, 300 per door in blocks that take turns; ms. The reference has
/// one door, so the rows of ours through `/v1/sessions` stand beside its `/v1/acp`.
pub fn turn_submit(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
    for _ in 0..ctx.times(BLOCKS) {
        lanes.each(|_, lane| ctx.solo.block_on(lane.run_acp()));
        lanes.each(|_, lane| ctx.solo.block_on(lane.run_sessions()));
    }
    let submit = |name, q| lanes.row(name, "ms", Better::Lower, |lane| Summary::quantile(&lane.submit, q));
    let acp = |name, q| lanes.row(name, "ms", Better::Lower, |lane| Summary::quantile(&lane.acp, q));
    let sessions = |name, q| {
        lanes.row(name, "ms", Better::Lower, |lane| {
            Summary::quantile(if lane.durable.is_some() { &lane.sessions } else { &lane.acp }, q)
        })
    };
    let note = "POST /v1/sessions/{id}/messages to 202, the turn is in the file then; the reference has no such route";
    Ok(lanes.report(vec![
        submit("turn submit p50", 0.5).note(note.to_owned()),
        submit("turn submit p99", 0.99),
        acp("first update, /v1/acp p50", 0.5),
        acp("first update, /v1/acp p99", 0.99),
        sessions("first update, /v1/sessions p50", 0.5).note("the reference through /v1/acp".to_owned()),
        sessions("first update, /v1/sessions p99", 0.99),
    ]))
}
