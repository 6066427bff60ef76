//! What the mock answers to each method, beside the echo.

use serde_json::{Value, json};

use super::{Mock, notification};

/// The result, and a notification that goes before it.
pub(super) fn result(agent: &Mock, method: &str, params: impl Fn() -> Value) -> (Value, Option<String>) {
    let mut before = None;
    let result = match method {
        "initialize" => initialize(),
        "session/new" => {
            let id = agent.new_session();
            let mut session = session_state(agent, &id);
            session["sessionId"] = id.into();
            session
        }
        "session/load" | "session/resume" => session_state(agent, params()["sessionId"].as_str().unwrap_or_default()),
        "session/set_mode" => {
            let params = params();
            agent.set(&params, "mode", &params["modeId"]);
            before = Some(update(&params, json!({"sessionUpdate": "current_mode_update", "currentModeId": params["modeId"]})));
            json!({})
        }
        "session/set_config_option" => {
            let params = params();
            agent.set(&params, params["configId"].as_str().unwrap_or_default(), &params["value"]);
            json!({"configOptions": config_options(agent, params["sessionId"].as_str().unwrap_or_default())})
        }
        _ => json!({}),
    };
    (result, before)
}

/// ACP "Initialization": the agent answers with the version it speaks, whatever it was asked for.
fn initialize() -> Value {
    json!({
        "protocolVersion": 1,
        "agentInfo": {"name": "mock", "title": "Mock", "version": env!("CARGO_PKG_VERSION")},
        "agentCapabilities": {
            "loadSession": true,
            "promptCapabilities": {"image": true, "audio": false, "embeddedContext": true},
            "sessionCapabilities": {"resume": {}},
        },
        "authMethods": [],
    })
}

fn session_state(agent: &Mock, session: &str) -> Value {
    let mode = |id: &str, name: &str| json!({"id": id, "name": name});
    json!({
        "modes": {"currentModeId": agent.setting(session, "mode").unwrap_or("normal".into()), "availableModes": [mode("normal", "Normal"), mode("plan", "Plan")]},
        "configOptions": config_options(agent, session),
    })
}

fn config_options(agent: &Mock, session: &str) -> Value {
    let select = |id: &str, name: &str, default: &str, values: &[(&str, &str)]| {
        let current = agent.setting(session, id).unwrap_or(default.into());
        let options: Vec<_> = values.iter().map(|(value, name)| json!({"value": value, "name": name})).collect();
        json!({"id": id, "category": id, "name": name, "type": "select", "currentValue": current, "options": options})
    };
    json!([
        select("model", "Model", "mock", &[("mock", "Mock"), ("mock-fast", "Mock Fast")]),
        select("mode", "Mode", "normal", &[("normal", "Normal"), ("plan", "Plan")]),
        select("thought_level", "Thought Level", "low", &[("low", "Low"), ("medium", "Medium"), ("high", "High")]),
    ])
}

/// A `session/update` for the session that `params` name.
pub(super) fn update(params: &Value, update: Value) -> String {
    notification("session/update", &json!({"sessionId": params["sessionId"], "update": update}))
}
