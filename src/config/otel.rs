//! Where spans are sent, by the variables of OpenTelemetry ("Environment Variable Specification", "OTLP Exporter
//! Configuration").

use std::time::Duration;

use super::{Env, Secret};

/// When no variable says how long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go, and as what.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// The whole URL, such as `http://collector:4318/v1/traces`.
    pub endpoint: String,
    /// Further headers of each request; their values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// Attributes of what sends, `service.name` among them.
    pub resource: Vec<(String, String)>,
    /// For one request.
    pub timeout: Duration,
    /// Why spans can't be sent although an endpoint is named.
    pub refused: Option<String>,
}

impl Otlp {
    /// `None` when no endpoint is named, or `OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER=none` say so.
    pub(super) fn from_env(env: &Env) -> Option<Self> {
        let disabled = env.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if disabled || env.get("OTEL_TRACES_EXPORTER") == Some("none") {
            return None;
        }
        let own = |name: &str| {
            env.get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| env.get(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let endpoint = match env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            Some(whole) => whole.to_owned(),
            None => format!("{}/v1/traces", env.get("OTEL_EXPORTER_OTLP_ENDPOINT")?.trim_end_matches('/')),
        };
        let headers = pairs(own("HEADERS").unwrap_or_default());
        let mut resource = pairs(env.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
        if let Some(name) = env.get("OTEL_SERVICE_NAME") {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".to_owned(), name.to_owned()));
        } else if !resource.iter().any(|(key, _)| key == "service.name") {
            resource.push(("service.name".to_owned(), "sandboxd".to_owned()));
        }
        let timeout = own("TIMEOUT").and_then(|ms| ms.parse().ok()).filter(|ms| *ms > 0).map_or(TIMEOUT, Duration::from_millis);
        let refused = own("PROTOCOL").filter(|protocol| !matches!(*protocol, "http/json" | "http/protobuf"));
        Some(Self {
            endpoint,
            headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            resource,
            timeout,
            refused: refused.map(|protocol| format!("OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only HTTP is spoken, as http/json")),
        })
    }
}

/// `key=value,key=value`, percent-encoded (W3C Baggage).
fn pairs(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).filter(|(key, _)| !key.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn otlp(pairs: &[(&str, &str)]) -> Option<Otlp> {
        Otlp::from_env(&Env::from_pairs(pairs.iter().map(|(key, value)| (*key, *value))))
    }

    #[test]
    fn the_endpoint_says_whether_and_where() {
        assert!(otlp(&[("OTEL_SERVICE_NAME", "x")]).is_none());
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        assert_eq!(otlp(&[base]).expect("on").endpoint, "http://c:4318/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1/as/it/is");
        assert_eq!(otlp(&[base, own]).expect("on").endpoint, "http://c:1/as/it/is");
        assert!(otlp(&[base, ("OTEL_SDK_DISABLED", "true")]).is_none());
        assert!(otlp(&[base, ("OTEL_TRACES_EXPORTER", "none")]).is_none());
        assert!(otlp(&[base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).expect("named").refused.is_some());
    }

    #[test]
    fn headers_and_resource_are_lists() {
        let found = otlp(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team = a=b ,rubbish"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=test"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ]);
        let found = found.expect("on");
        let headers: Vec<_> = found.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(headers, [("authorization", "Bearer abc"), ("x-team", "a=b")]);
        let resource: Vec<_> = found.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(resource, [("deployment.environment.name", "test"), ("service.name", "mine")]);
        assert_eq!(found.timeout, Duration::from_millis(1500));
        assert!(!format!("{found:?}").contains("abc"));
    }
}
