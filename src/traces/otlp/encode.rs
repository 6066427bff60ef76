//! Spans in OTLP's JSON (OTLP 1.x, "JSON Protobuf Encoding"): ids as hex, 64-bit integers as strings, enums as numbers.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::store::SpanRow;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<Span<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<&'a str>,
    name: String,
    /// `SPAN_KIND_INTERNAL`.
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<KeyValue>,
    status: Status,
}

#[derive(Serialize)]
struct Status {
    /// 0 unset, 2 error.
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct KeyValue {
    key: String,
    value: AnyValue,
}

#[derive(Serialize)]
enum AnyValue {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[serde(rename = "intValue")]
    Whole(String),
    #[serde(rename = "doubleValue")]
    Double(f64),
    #[serde(rename = "arrayValue")]
    List { values: Vec<AnyValue> },
    #[serde(rename = "kvlistValue")]
    Members { values: Vec<KeyValue> },
}

impl From<Value> for AnyValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Text(String::new()),
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Whole(whole.to_string()),
                None => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Self::Text(text),
            Value::Array(values) => Self::List { values: values.into_iter().map(Self::from).collect() },
            Value::Object(members) => Self::Members { values: key_values(members) },
        }
    }
}

fn key_values(members: Map<String, Value>) -> Vec<KeyValue> {
    members.into_iter().map(|(key, value)| KeyValue { key, value: value.into() }).collect()
}

/// One `ExportTraceServiceRequest`.
pub(super) fn request(resource: &[(String, String)], rows: &[SpanRow]) -> Vec<u8> {
    let own = |(key, value): &(String, String)| KeyValue { key: key.clone(), value: AnyValue::Text(value.clone()) };
    let scope = Scope { name: "sandboxd", version: env!("CARGO_PKG_VERSION") };
    let scope_spans = [ScopeSpans { scope, spans: rows.iter().map(span).collect() }];
    let resource = Resource { attributes: resource.iter().map(own).collect() };
    let request = Request { resource_spans: [ResourceSpans { resource, scope_spans }] };
    serde_json::to_vec(&request).unwrap_or_default() // only keys that are no strings could fail
}

fn span(row: &SpanRow) -> Span<'_> {
    let mut attributes: Map<String, Value> = serde_json::from_str(&row.doc).unwrap_or_default();
    let outcome = row.outcome.clone().unwrap_or_default();
    let failed = attributes.contains_key("error.type");
    attributes.insert("sandboxd.kind".into(), row.kind.clone().into());
    attributes.insert("sandboxd.outcome".into(), outcome.clone().into());
    let nanos = |ms: i64| (i128::from(ms.max(0)) * 1_000_000).to_string();
    Span {
        trace_id: &row.trace_id,
        span_id: &row.span_id,
        parent_span_id: row.parent_span_id.as_deref(),
        name: name(row),
        kind: 1,
        start_time_unix_nano: nanos(row.started_at_ms),
        end_time_unix_nano: nanos(row.ended_at_ms.unwrap_or(row.started_at_ms)),
        attributes: key_values(attributes),
        status: Status { code: if failed { 2 } else { 0 }, message: failed.then_some(outcome) },
    }
}

/// As the conventions for generative AI name spans: the operation, and what it is about.
fn name(row: &SpanRow) -> String {
    match row.kind.as_str() {
        "turn" => format!("invoke_agent {}", row.name),
        "tool_call" => format!("execute_tool {}", row.name),
        "permission" => format!("wait {}", row.name),
        _ => row.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_span_is_written_as_the_protocol_has_it() {
        let doc =
            json!({"gen_ai.usage.input_tokens": 7, "sandboxd.cost": 0.5, "ok": true, "list": ["a"], "error.type": "failed"});
        let row = SpanRow {
            span_id: "00f067aa0ba902b7".into(),
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            parent_span_id: Some("00f067aa0ba902b6".into()),
            session_id: Some("ses_1".into()),
            turn_id: None,
            kind: "tool_call".into(),
            name: "read".into(),
            started_at_ms: 1_700_000_000_000,
            ended_at_ms: Some(1_700_000_000_005),
            outcome: Some("failed".into()),
            doc: doc.to_string(),
        };
        let written = request(&[("service.name".into(), "sandboxd".into())], &[row]);
        let sent: Value = serde_json::from_slice(&written).expect("JSON");
        let of = &sent["resourceSpans"][0];
        assert_eq!(of["resource"]["attributes"], json!([{"key": "service.name", "value": {"stringValue": "sandboxd"}}]));
        let span = &of["scopeSpans"][0]["spans"][0];
        let attributes = span["attributes"].as_array().expect("attributes").iter();
        let attributes: Map<_, _> =
            attributes.map(|pair| (pair["key"].as_str().expect("a key").to_owned(), pair["value"].clone())).collect();
        let expected = json!({
            "error.type": {"stringValue": "failed"},
            "gen_ai.usage.input_tokens": {"intValue": "7"},
            "list": {"arrayValue": {"values": [{"stringValue": "a"}]}},
            "ok": {"boolValue": true},
            "sandboxd.cost": {"doubleValue": 0.5},
            "sandboxd.kind": {"stringValue": "tool_call"},
            "sandboxd.outcome": {"stringValue": "failed"},
        });
        assert_eq!(Value::Object(attributes), expected);
        assert_eq!((&span["name"], &span["kind"]), (&json!("execute_tool read"), &json!(1)));
        assert_eq!(span["parentSpanId"], "00f067aa0ba902b6");
        assert_eq!(
            (&span["startTimeUnixNano"], &span["endTimeUnixNano"]),
            (&json!("1700000000000000000"), &json!("1700000000005000000"))
        );
        assert_eq!(span["status"], json!({"code": 2, "message": "failed"}));
    }
}
