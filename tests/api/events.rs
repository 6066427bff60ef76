//! The whole log as pages and as one event stream.

use serde_json::{Value, json};

use crate::processes_support::{create, ended, sh};
use crate::support::{Events, Home, Server};

async fn stream(server: &Server, query: &str, after: Option<u64>) -> Events {
    let mut request = server.http.get(server.url(&format!("/v1/events{query}"))).header("accept", "text/event-stream");
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let response = request.send().await.expect("an answer");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"text/event-stream".parse().expect("a value"))
    );
    Events::of(response)
}

async fn run(server: &Server, n: usize) -> String {
    let (status, ran) = server.send("/v1/processes/run", &json!({"command": "echo", "args": [n.to_string()]})).await;
    assert_eq!(status, 200, "{ran}");
    ran["processId"].as_str().expect("an id").to_owned()
}

fn ids(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["sequence"].as_u64().expect("a position")).collect()
}

#[tokio::test]
async fn one_cursor_goes_through_everything_that_happens() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    let mut live = stream(&server, "?type=process.ran,port.*", None).await;
    server.call("a", "amp", 0, "initialize", json!({})).await;
    let first = run(&server, 0).await;
    let flood = async {
        server.call("a", "amp", 1, "fake/flood", json!({"count": 3000, "bytes": 100})).await;
    };
    let (runs, ()) = tokio::join!(futures_util::future::join_all((1..60).map(|n| run(&server, n))), flood);
    let last = run(&server, 60).await;
    let seen = live.until(|event| event.data["id"] == json!(last)).await;
    let mut expected = [vec![first], runs, vec![last.clone()]].concat();
    let mut told: Vec<_> = seen.iter().map(|event| event.data["id"].as_str().expect("an id").to_owned()).collect();
    assert!(seen.iter().all(|event| event.name == "message" && event.id == event.data["sequence"].as_u64()));
    assert!(seen.is_sorted_by(|a, b| a.id < b.id), "in order, none twice");
    expected.sort();
    told.sort();
    assert_eq!(told, expected, "each once, and nothing else");
    let event = &seen[0].data;
    assert_eq!(
        (&event["stream"], &event["type"], &event["streamSequence"]),
        (&json!("processes"), &json!("process.ran"), &json!(1))
    );
    assert!(event["time"].as_i64() > Some(1_600_000_000_000), "{event}");

    let mut resumed = stream(&server, "?type=process.ran", seen[30].id).await;
    let rest = resumed.until(|event| event.data["id"] == json!(last)).await;
    assert_eq!(rest, seen[31..], "it goes on where the client was");

    let (mut after, mut paged) = (0, Vec::new());
    loop {
        let (status, page) = server.get(&format!("/v1/events?type=process.*&limit=7&after={after}")).await;
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().expect("events").clone();
        assert!(events.len() <= 7 && page["next"].as_u64() >= Some(after), "{page}");
        paged.extend(events);
        after = page["next"].as_u64().expect("a cursor");
        if page["hasMore"] == false {
            break;
        }
    }
    assert_eq!(paged, seen.iter().map(|event| event.data.clone()).collect::<Vec<_>>());
    assert_eq!(ids(&paged), seen.iter().filter_map(|event| event.id).collect::<Vec<_>>());
    assert_eq!(server.stop(), Some(0));
    let mut end = resumed.all().await;
    assert_eq!(end.pop().map(|event| (event.name, event.data)), Some(("end".into(), json!({"reason": "shutdown"}))));
}

#[tokio::test]
async fn events_are_picked_by_process_and_outlive_a_crash() {
    let home = Home::new();
    let server = Server::start(&home);
    let one = create(&server, sh("true", json!({}))).await;
    let other = create(&server, json!({"command": "echo", "args": [one]})).await;
    ended(&server, &one).await;
    ended(&server, &other).await;
    assert_eq!(server.http.delete(server.url(&format!("/v1/processes/{one}"))).send().await.expect("sent").status(), 204);
    let types = |page: &Value| {
        let events = page["events"].as_array().expect("events").iter();
        events.map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let query = format!("/v1/events?processId={one}");
    let (_, page) = server.get(&query).await;
    assert_eq!(
        types(&page),
        ["process.started", "process.exited", "process.deleted"],
        "not the one that only has its name as an argument"
    );
    let (_, both) = server.get(&format!("{query},{other}&type=process.exited,process.deleted")).await;
    assert_eq!(types(&both).len(), 3, "{both}");
    server.kill();
    let server = Server::start(&home);
    let (_, again) = server.get(&query).await;
    assert_eq!(again["events"], page["events"], "positions are kept");
    let beyond = page["newest"].as_u64().expect("a position") + 1000;
    let (_, gap) = server.get(&format!("/v1/events?after={beyond}")).await;
    assert_eq!((&gap["gaps"][0]["to"], &gap["gaps"][0]["reason"]), (&json!(beyond), &json!("not_kept")), "{gap}");
    assert!(gap["next"].as_u64() < Some(beyond), "{gap}");
    let told = stream(&server, "", Some(beyond)).await.next().await.expect("a gap");
    assert_eq!((told.name.as_str(), &told.data["to"]), ("gap", &json!(beyond)));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_named() {
    let home = Home::new();
    let server = Server::start(&home);
    let many = vec!["x"; 65].join(",");
    for (query, word) in [
        ("?limit=0", "limit"),
        ("?limit=513", "limit"),
        ("?after=-1", "after"),
        ("?sessionId=", "sessionId"),
        ("?processId=,", "processId"),
        (&format!("?type={many}"), "type"),
    ] {
        let (status, problem) = server.get(&format!("/v1/events{query}")).await;
        assert_eq!(status, 400, "{query}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{query}: {problem}");
    }
    let refused = server.http.get(server.url("/v1/events")).header("accept", "text/html").send().await.expect("an answer");
    assert_eq!(refused.status(), 406);
    assert_eq!(server.stop(), Some(0));
}
