//! What rules decide, and attempts to get around them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::policy::{Compiled, Decision, Effect, Rule, decide};
use super::super::subject::{Origin, Subject, ToolCall};

fn rules(rules: &Value) -> Vec<Compiled> {
    let all = rules.as_array().expect("a list").iter().zip(1..).map(|(rule, number)| {
        let mut rule: Rule = serde_json::from_value(rule.clone()).expect("a rule");
        rule.id = format!("r{number}");
        Compiled::new(rule).expect("a sound rule")
    });
    all.collect()
}

fn subject(call: &Value) -> Subject {
    let origin = Origin { agent: "mock".into(), session_id: Some("ses_1".into()), cwd: "/w".into() };
    let call: Option<ToolCall> = serde_json::from_value(call.clone()).ok();
    Subject::new(origin, call.as_ref())
}

fn said(list: &Value, call: &Value) -> Decision {
    decide(rules(list).iter(), &subject(call))
}

fn effect(list: &Value, call: &Value) -> Effect {
    said(list, call).effect
}

fn run(line: &str) -> Value {
    json!({"kind": "execute", "title": line, "rawInput": {"command": line}})
}

#[test]
fn the_first_rule_that_matches_decides() {
    let list = json!([
        {"effect": "deny", "commands": ["git push*"]},
        {"effect": "allow", "commands": ["git *"]},
        {"effect": "ask", "toolKinds": ["execute"], "deadlineMs": 5},
        {"effect": "allow"},
    ]);
    let wanted = [("git push -f", Effect::Deny, "r1"), ("git log", Effect::Allow, "r2"), ("make", Effect::Ask, "r3")];
    for (line, effect, rule) in wanted {
        let decision = said(&list, &run(line));
        assert_eq!((decision.effect, decision.rule.as_deref()), (effect, Some(rule)), "{line}");
    }
    assert_eq!(said(&list, &run("make")).deadline_ms, Some(5));
    assert_eq!(said(&json!([]), &run("ls")), Decision { effect: Effect::Ask, rule: None, deadline_ms: None });
}

#[test]
fn every_criterion_must_hold() {
    let call = json!({"kind": "edit", "name": "Write", "title": "Write x", "rawInput": {"file_path": "/w/src/x"}});
    let cases = [
        (json!({"agents": ["mock"]}), true),
        (json!({"agents": ["claude"]}), false),
        (json!({"toolKinds": ["read", "edit"]}), true),
        (json!({"toolKinds": ["read"]}), false),
        (json!({"tools": ["Wr*"]}), true),
        (json!({"tools": ["Write x"]}), false), // it has a name, so its title counts for nothing
        (json!({"paths": ["/w/**"]}), true),
        (json!({"paths": ["src/*"]}), true),
        (json!({"paths": ["*"]}), false),
        (json!({"paths": ["/x/**"]}), false),
        (json!({"cwd": "/w"}), true),
        (json!({"cwd": "/w/*"}), false),
        (json!({"sessionId": "ses_1"}), true),
        (json!({"sessionId": "ses_2"}), false),
        (json!({"input": {"file_path": "/w/src/x"}}), true),
        (json!({"input": {"file_path": "/w/src/y"}}), false),
        (json!({"commands": ["*"]}), false),
        (json!({"agents": ["mock"], "paths": ["/w/**"], "toolKinds": ["edit"]}), true),
        (json!({"agents": ["mock"], "paths": ["/x/**"], "toolKinds": ["edit"]}), false),
    ];
    for (mut rule, holds) in cases {
        rule["effect"] = json!("allow");
        let wanted = if holds { Effect::Allow } else { Effect::Ask };
        assert_eq!(effect(&json!([rule]), &call), wanted, "{rule}");
    }
}

#[test]
fn no_way_around_allowed_paths() {
    let list = json!([{"effect": "allow", "paths": ["/w/**"]}]);
    let edit = |path: &str| json!({"kind": "edit", "rawInput": {"path": path}});
    for path in ["/w/a", "a", "./a/../b", "/x/../w/a", "größe", "file:///w/a"] {
        assert_eq!(effect(&list, &edit(path)), Effect::Allow, "{path}");
    }
    for path in [
        "/w/../etc/passwd",
        "../etc/passwd",
        "a/../../etc",
        "/w",
        "/wx/a",
        "~/a",
        "https://w/a",
        "",
        "file:///etc/passwd",
        "file:///w/%2e%2e/etc/passwd",
        "/w/a\0/../../etc",
    ] {
        assert_eq!(effect(&list, &edit(path)), Effect::Ask, "{path}");
    }
    let calls = [
        json!({"kind": "edit"}),
        json!({"kind": "edit", "rawInput": {"path": 7}}),
        json!({"kind": "edit", "locations": [{"path": "/w/a"}, {"path": "/etc/x"}]}),
        json!({"kind": "edit", "locations": [{"path": "/w/a"}], "rawInput": {"edits": [{"filePath": "/etc/x"}]}}),
        json!({"kind": "edit", "locations": [{"path": "/w/a"}], "content": [{"type": "diff", "path": "/etc/x"}]}),
        json!({"kind": "execute", "locations": [{"path": "/w/a"}], "rawInput": {"command": "rm -rf /"}}),
        json!({"kind": "edit", "locations": [{"path": "/w/a"}], "rawInput": {"command": "rm -rf /"}}),
        json!({"kind": "other", "locations": [{"path": "/w/a"}], "rawInput": {"permissions": {"network": {"enabled": true}}}}),
        json!({"locations": [{"path": "/w/a"}]}),
        json!({"kind": "nonsense", "locations": [{"path": "/w/a"}]}),
    ];
    for call in calls {
        assert_eq!(effect(&list, &call), Effect::Ask, "{call}");
    }
}

#[test]
fn no_way_around_allowed_commands() {
    let list = json!([{"effect": "allow", "commands": ["git status*", "ls*", "regex:echo [a-z ]+"]}]);
    for line in ["git status", "ls -l && git status", "ls 2>&1 | ls", "echo a b", "bash -lc 'ls; git status'", "ls größe"] {
        assert_eq!(effect(&list, &run(line)), Effect::Allow, "{line}");
    }
    for line in [
        "git status; rm x",
        "git status\nrm x",
        "ls & rm x",
        "ls | sh",
        "ls $(rm x)",
        "ls `rm x`",
        "ls > /etc/passwd",
        "bash -lc \"ls; rm x\"",
        "ls # it's\nrm x # '",
        "LD_PRELOAD=x ls",
        "sudo ls",
        "echo a1",
        "echo a\u{202e}",
        "xecho a",
        "bash -c 'bash -c \"rm x\"'",
        "",
        "   ",
        "ls <(rm x)",
        "ls ${x:-$(rm x)}",
        "ls \\\n; rm x",
        "eval ls",
    ] {
        assert_eq!(effect(&list, &run(line)), Effect::Ask, "{line:?}");
    }
    let array = |words: Value| json!({"kind": "execute", "rawInput": {"command": words}});
    assert_eq!(effect(&list, &array(json!(["bash", "-lc", "ls"]))), Effect::Allow);
    assert_eq!(effect(&list, &array(json!(["bash", "-lc", "ls; rm x"]))), Effect::Ask);
    assert_eq!(effect(&list, &array(json!(["ls", ";", "rm"]))), Effect::Allow, "a word is no operator");
    let calls = [
        json!({"kind": "execute"}),
        json!({"kind": "execute", "title": "ls"}),
        json!({"kind": "execute", "title": "ls", "rawInput": null}),
        json!({"kind": "execute", "rawInput": {"command": {"a": "ls"}}}),
        json!({"kind": "execute", "rawInput": {"command": "ls", "cmd": "rm x"}}),
        json!({"kind": "execute", "rawInput": {"command": "ls", "additionalPermissions": {"network": {"enabled": true}}}}),
        json!({"kind": "execute", "rawInput": {"command": "ls", "dangerouslyDisableSandbox": true}}),
        json!("no object"),
    ];
    for call in calls {
        assert_eq!(effect(&list, &call), Effect::Ask, "{call}");
    }
}

#[test]
fn a_title_is_not_a_tool_that_runs_something() {
    let list = json!([{"effect": "allow", "tools": ["Read*"]}]);
    assert_eq!(effect(&list, &json!({"kind": "read", "title": "Read x"})), Effect::Allow);
    assert_eq!(effect(&list, &run("Read x; rm y")), Effect::Ask);
    let kinds = json!([{"effect": "allow", "toolKinds": ["read"]}]);
    assert_eq!(effect(&kinds, &json!({"kind": "read", "rawInput": {"command": "rm x"}})), Effect::Ask);
}

#[test]
fn refusals_see_through_spellings() {
    let list = json!([{"effect": "deny", "commands": ["rm *"]}, {"effect": "allow"}]);
    for line in [
        "rm -rf x",
        "ls; rm x",
        "/bin/rm x",
        "sudo rm x",
        "X=1 rm x",
        "sudo -n /bin/rm x",
        "bash -c 'rm x'",
        "'rm' x",
        "\\rm x",
        "echo $(rm x)",
        "(rm x)",
        "ls || rm x",
        "env A=b rm x",
        "echo \"$(rm x)\"",
        "{ rm x; }",
    ] {
        assert_eq!(effect(&list, &run(line)), Effect::Deny, "{line:?}");
    }
    assert_eq!(effect(&list, &run("echo $(date)")), Effect::Ask, "in doubt a person decides");
    assert_eq!(effect(&list, &json!({"kind": "execute"})), Effect::Ask);
    assert_eq!(effect(&list, &run("ls")), Effect::Allow);
    assert_eq!(effect(&list, &json!({"kind": "edit", "rawInput": {"path": "x"}})), Effect::Allow);
}

#[test]
fn refused_paths_need_only_one() {
    let list = json!([{"effect": "deny", "paths": ["**/.env", "/etc/**"]}, {"effect": "allow"}]);
    let both = json!({"kind": "edit", "locations": [{"path": "/w/a"}, {"path": "/w/b/../.env"}]});
    assert_eq!(effect(&list, &both), Effect::Deny);
    assert_eq!(effect(&list, &json!({"kind": "read", "rawInput": {"path": "../etc/passwd"}})), Effect::Deny);
    assert_eq!(effect(&list, &json!({"kind": "edit"})), Effect::Ask, "it touches something, nobody knows what");
    assert_eq!(effect(&list, &json!({"kind": "read", "rawInput": {"path": "~/.env"}})), Effect::Ask);
    assert_eq!(effect(&list, &run("make")), Effect::Allow);
}

#[test]
fn what_cannot_be_read_is_never_allowed() {
    let list = json!([{"effect": "allow"}]);
    assert_eq!(effect(&list, &json!("no object")), Effect::Ask);
    assert_eq!(effect(&list, &json!({})), Effect::Allow, "a rule without criteria allows what can be read");
}

#[test]
fn faults_name_their_field() {
    let cases = [
        (json!({"effect": "allow", "toolKinds": ["write"]}), "toolKinds"),
        (json!({"effect": "allow", "agents": []}), "agents"),
        (json!({"effect": "allow", "commands": []}), "commands"),
        (json!({"effect": "allow", "commands": ["regex:("]}), "commands"),
        (json!({"effect": "allow", "commands": ["regex:a)|(b"]}), "commands"),
        (json!({"effect": "allow", "commands": ["[a"]}), "commands"),
        (json!({"effect": "allow", "paths": ["~/x"]}), "paths"),
        (json!({"effect": "allow", "paths": ["/w/../x"]}), "paths"),
        (json!({"effect": "allow", "paths": [""]}), "paths"),
        (json!({"effect": "allow", "cwd": "w"}), "cwd"),
        (json!({"effect": "allow", "deadlineMs": 1}), "deadlineMs"),
        (json!({"effect": "ask", "deadlineMs": 0}), "deadlineMs"),
    ];
    for (rule, field) in cases {
        let rule: Rule = serde_json::from_value(rule).expect("a rule");
        let fault = Compiled::new(rule.clone()).expect_err("a fault");
        assert_eq!(fault.field, field, "{rule:?}");
    }
}

fn some_text() -> impl Strategy<Value = String> {
    prop_oneof![Just("ls".to_owned()), Just("/w/a".to_owned()), Just("rm -rf /; ls".to_owned()), Just("**".to_owned()), ".{0,12}"]
}

fn some_rule(effects: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let list = || proptest::option::of(proptest::collection::vec(some_text(), 1..3));
    let kinds =
        proptest::option::of(proptest::collection::vec(proptest::sample::select(vec!["read", "edit", "execute", "other"]), 1..3));
    (proptest::sample::select(effects), list(), list(), list(), kinds).prop_map(|(effect, tools, paths, commands, kinds)| {
        json!({"effect": effect, "tools": tools, "paths": paths, "commands": commands, "toolKinds": kinds})
    })
}

fn some_call() -> impl Strategy<Value = Value> {
    let kind = proptest::option::of(proptest::sample::select(vec!["read", "edit", "execute", "other", "x"]));
    (kind, proptest::option::of(some_text()), proptest::option::of(some_text()), proptest::option::of(some_text())).prop_map(
        |(kind, title, path, command)| json!({"kind": kind, "title": title, "rawInput": {"path": path, "command": command}}),
    )
}

fn sound(rules: Vec<Value>) -> Vec<Compiled> {
    rules.into_iter().filter_map(|rule| Compiled::new(serde_json::from_value(rule).ok()?).ok()).collect()
}

proptest! {
    #[test]
    fn rules_that_only_refuse_or_ask_never_allow(
        rules in proptest::collection::vec(some_rule(&["deny", "ask"]), 0..6),
        call in some_call(),
    ) {
        prop_assert_ne!(decide(sound(rules).iter(), &subject(&call)).effect, Effect::Allow);
    }

    #[test]
    fn a_refusal_put_first_takes_no_refusal_away(
        first in some_rule(&["deny"]),
        rules in proptest::collection::vec(some_rule(&["deny", "allow"]), 0..6),
        call in some_call(),
    ) {
        let subject = subject(&call);
        let before = decide(sound(rules.clone()).iter(), &subject).effect;
        let after = decide(sound([vec![first], rules].concat()).iter(), &subject).effect;
        prop_assert!(after == before || after != Effect::Allow);
    }

    #[test]
    fn a_line_with_a_stranger_in_it_is_not_allowed(line in "[ -~\n]{0,40}", at in 0usize..40) {
        // Whatever surrounds it, a command that is no `ok` must not get through where the shell would run it.
        let list = json!([{"effect": "allow", "commands": ["ok*"]}]);
        let at = at.min(line.len());
        let spiked = format!("{}\nrm x\n{}", &line[..at], &line[at..]);
        let quoted = line[..at].contains(['\'', '"', '\\']);
        if !quoted {
            prop_assert_eq!(effect(&list, &run(&spiked)), Effect::Ask);
        }
    }
}
