//! `api agents report`: what can be chosen for each agent, in a shape for scripts.

use serde::{Deserialize, Serialize};

/// What of `GET /v1/agents?config=true` the report is made of.
#[derive(Debug, Deserialize)]
pub(super) struct AgentList {
    agents: Vec<Agent>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    id: String,
    installed: bool,
    #[serde(default)]
    config_options: Vec<ConfigOption>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigOption {
    category: Option<String>,
    current_value: Option<String>,
    #[serde(default)]
    options: Vec<Value>,
}

/// The report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    generated_at_ms: i64,
    endpoint: String,
    agents: Vec<AgentReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentReport {
    id: String,
    installed: bool,
    models: Choice,
    modes: Choice,
    thought_levels: Choice,
}

/// What one option can be; empty when the agent doesn't have it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Choice {
    #[serde(skip_serializing_if = "Option::is_none")]
    current_value: Option<String>,
    values: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Value {
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Report {
    /// The report on this list, as of `now_ms` (milliseconds since the Unix epoch).
    pub(super) fn new(list: AgentList, endpoint: &str, now_ms: i64) -> Self {
        let agents = list.agents.into_iter().map(AgentReport::from).collect();
        Self { generated_at_ms: now_ms, endpoint: endpoint.to_owned(), agents }
    }
}

impl From<Agent> for AgentReport {
    fn from(agent: Agent) -> Self {
        let choice = |category: &str| choice(&agent.config_options, category);
        let (models, modes, thought_levels) = (choice("model"), choice("mode"), choice("thought_level"));
        Self { id: agent.id, installed: agent.installed, models, modes, thought_levels }
    }
}

fn choice(options: &[ConfigOption], category: &str) -> Choice {
    let found = options.iter().find(|option| option.category.as_deref() == Some(category));
    found.map_or_else(Choice::default, |option| {
        let mut values = option.options.clone();
        values.sort();
        Choice { current_value: option.current_value.clone(), values }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sorted_and_missing_categories_are_empty() {
        let list = serde_json::json!({"agents": [{"id": "a", "installed": true, "more": 1, "configOptions": [
            {"id": "model", "category": "model", "currentValue": "z", "options": [{"value": "z", "name": "Z"}, {"value": "b", "name": "B"}]}]}]});
        let report = Report::new(serde_json::from_value(list).expect("a list"), "http://e", 7);
        let wanted = serde_json::json!({"generatedAtMs": 7, "endpoint": "http://e", "agents": [{"id": "a", "installed": true,
            "models": {"currentValue": "z", "values": [{"value": "b", "name": "B"}, {"value": "z", "name": "Z"}]},
            "modes": {"values": []}, "thoughtLevels": {"values": []}}]});
        assert_eq!(serde_json::to_value(report).expect("JSON"), wanted);
    }
}
