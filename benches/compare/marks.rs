//! Readers of event streams that know what to expect: the numbers that the flood agent puts into its texts, each of them
//! once or more, whatever the events around them look like.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::Result;
use crate::flood_agent::{MARK, MARK_DIGITS};
use crate::http::EventStream;

/// A reader without a new number for this long has lost what is missing.
const STALL: Duration = Duration::from_secs(5);

/// A reader like an `EventSource`: when the server ends its stream, it goes on with `Last-Event-ID`.
pub struct MarkReader {
    addr: SocketAddr,
    path: String,
    stream: EventStream,
    last_id: Option<u64>,
}

/// What it got.
pub struct Tally {
    /// Different numbers.
    pub distinct: usize,
    /// Events they came in.
    pub events: usize,
    pub last: Instant,
}

impl MarkReader {
    pub async fn open(addr: SocketAddr, path: &str) -> Result<Self> {
        let stream = EventStream::open(addr, path, None).await?;
        Ok(Self { addr, path: path.to_owned(), stream, last_id: None })
    }

    /// Reads until every number below `count` came. Items that are shown as a whole at their end are left out: they
    /// repeat what came before.
    pub async fn read_all(&mut self, count: usize) -> Result<Tally> {
        let mut tally = Tally { distinct: 0, events: 0, last: Instant::now() };
        let mut seen = vec![false; count];
        while tally.distinct < count {
            let (mut fresh, mut events, mut newest) = (0, 0, self.last_id);
            let each = |id: u64, data: &[u8]| {
                newest = newest.max(Some(id));
                if !is_repetition(data) {
                    fresh += take_marks(data, &mut seen);
                    events += 1;
                }
            };
            let Ok(open) = timeout(STALL, self.stream.read_events(each)).await else { break };
            self.last_id = newest;
            tally.distinct += fresh;
            tally.events += events;
            if fresh > 0 {
                tally.last = Instant::now();
            } else if tally.last.elapsed() > STALL {
                break;
            }
            if !open.unwrap_or(false) {
                sleep(Duration::from_millis(2)).await;
                self.stream = EventStream::open(self.addr, &self.path, self.last_id).await?;
            }
        }
        Ok(tally)
    }

    /// When this number came.
    pub async fn until(&mut self, number: usize) -> Result<Instant> {
        let mut seen = vec![false; number + 1];
        let wait = async {
            while !seen[number] {
                let each = |_: u64, data: &[u8]| {
                    take_marks(data, &mut seen);
                };
                if !self.stream.read_events(each).await? {
                    return Err("the stream ended before the turn".into());
                }
            }
            Ok(Instant::now())
        };
        timeout(STALL, wait).await.map_err(|_| format!("number {number} did not come"))?
    }
}

fn is_repetition(data: &[u8]) -> bool {
    const TYPE: &[u8] = br#""type":"item.completed""#;
    data[..data.len().min(400)].windows(TYPE.len()).any(|part| part == TYPE)
}

/// Notes every number in an event; gives how many are new.
fn take_marks(data: &[u8], seen: &mut [bool]) -> usize {
    let (mark, mut at, mut fresh) = (MARK.as_bytes(), 0, 0);
    let dash = mark.len() - 1;
    while let Some(found) = data[at..].iter().position(|byte| *byte == b'-') {
        let end = at + found + 1;
        at = end;
        if end <= dash || !data[..end].ends_with(mark) {
            continue;
        }
        let digits = data.get(end..end + MARK_DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
        let place = digits.and_then(|digits| seen.get_mut(digits.parse::<usize>().ok()?));
        fresh += usize::from(place.is_some_and(|place| !std::mem::replace(place, true)));
    }
    fresh
}
