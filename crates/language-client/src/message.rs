//! What a message is (JSON-RPC 2.0).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ResponseError;

/// A message of a server.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// It wants an answer with this id.
    Request {
        id: Box<RawValue>,
        method: String,
        params: Option<Box<RawValue>>,
    },
    Notification {
        method: String,
        params: Option<Box<RawValue>>,
    },
    /// To one of ours.
    Response {
        id: u64,
        outcome: Result<Box<RawValue>, ResponseError>,
    },
}

#[derive(Deserialize)]
struct Message {
    id: Option<Box<RawValue>>,
    method: Option<String>,
    params: Option<Box<RawValue>>,
    result: Option<Box<RawValue>>,
    error: Option<ResponseError>,
}

impl Incoming {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(body: &Bytes) -> Result<Self, String> {
        let message: Message = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let Message { id, method, params, result, error } = message;
        let id = id.filter(|id| id.get() != "null");
        match (id, method) {
            (Some(id), Some(method)) => Ok(Self::Request { id, method, params }),
            (None, Some(method)) => Ok(Self::Notification { method, params }),
            (Some(id), None) => {
                let id = id.get().trim_matches('"').parse().map_err(|_| format!("an answer to {id}, which was never asked"))?;
                let outcome = error.map_or_else(|| Ok(result.unwrap_or_else(|| RawValue::NULL.to_owned())), Err);
                Ok(Self::Response { id, outcome })
            }
            (None, None) => Err(error.map_or_else(|| "neither method nor id".to_owned(), |error| error.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Incoming, String> {
        Incoming::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn each_kind_is_told() {
        assert!(matches!(parse(r#"{"jsonrpc":"2.0","id":"a","method":"m"}"#), Ok(Incoming::Request { .. })));
        assert!(matches!(parse(r#"{"jsonrpc":"2.0","method":"m","params":[1]}"#), Ok(Incoming::Notification { .. })));
        let nothing = parse(r#"{"jsonrpc":"2.0","id":3,"result":null}"#);
        assert!(matches!(nothing, Ok(Incoming::Response { id: 3, outcome: Ok(ref result) }) if result.get() == "null"));
        let refused = parse(r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32801,"message":"no"}}"#);
        assert!(matches!(refused, Ok(Incoming::Response { id: 3, outcome: Err(ref error) }) if error.code == -32801));
        for wrong in
            ["", "[]", "{}", "7", r#"{"id":null,"error":{"code":1,"message":"parse error"}}"#, r#"{"id":"x","result":1}"#]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
