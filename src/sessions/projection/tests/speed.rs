//! By hand: `cargo test --release --lib projection::tests::speed -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

const CHUNKS: usize = 1_000_000;

/// Chunks of about five words, one read of 64 of them at a time.
fn measure(what: &str, update: &str) {
    let mut bench = Bench::in_turn();
    let (mut events, mut bytes) = (0, 0);
    let start = Instant::now();
    for number in 0..CHUNKS {
        bench.raw(update);
        if number % 64 == 63 {
            bench.flush();
            events += bench.out.len();
            bytes += bench.out.drain(..).map(|event| event.payload.len()).sum::<usize>();
        }
    }
    let per_second = CHUNKS as f64 / start.elapsed().as_secs_f64();
    println!("{what}: {per_second:.0} updates/s, {events} events, {bytes} bytes");
}

#[test]
#[ignore = "a measurement, not a test"]
fn updates_per_second() {
    let chunk = |text: &str| {
        let content = json!({"type": "text", "text": text});
        json!({"sessionUpdate": "agent_message_chunk", "messageId": "msg_0123", "content": content})
    };
    measure("plain chunks", &chunk("some words of an answer, ").to_string());
    measure("chunks with escapes", &chunk("let x = \"y\";\n").to_string());
    let meta = json!({"terminal_output_delta": {"data": "   Compiling serde v1.0.0\n", "terminal_id": "call_1"}});
    measure(
        "pieces of a tool's output",
        &json!({"sessionUpdate": "tool_call_update", "toolCallId": "call_1", "_meta": meta}).to_string(),
    );
}
