//! Known secrets are in no event, no row and no file of the log.

use serde_json::json;

use crate::support::{Home, Options, Server};

#[tokio::test]
async fn secrets_of_the_environment_and_of_agents_files_are_not_stored() {
    let home = Home::new();
    home.fake_agent("", "");
    std::fs::create_dir_all(home.path().join(".codex")).expect("a folder");
    let secrets = ["key\"with quote", "ghp_of_the_environment", "sk-of-codex-0123", "own-token-0123"];
    std::fs::write(home.path().join(".codex/auth.json"), json!({"OPENAI_API_KEY": secrets[2]}).to_string()).expect("written");
    let options = Options { args: vec!["--token".into(), secrets[3].into()], ..Options::default() };
    let options = options.env("SOME_API_KEY", secrets[0]).env("GITHUB_TOKEN", secrets[1]);
    let mut server = Server::start_with(&home, &options);
    let bearer = [("authorization".parse().expect("a name"), format!("Bearer {}", secrets[3]).parse().expect("a value"))];
    server.http = reqwest::Client::builder().no_proxy().default_headers(bearer.into_iter().collect()).build().expect("a client");
    server.call("a", "amp", 0, "initialize", json!({})).await;
    let heard = server.call("a", "amp", 1, "echo", json!({"secrets": secrets, "inner": json!(secrets).to_string()})).await;
    assert_eq!(heard["result"]["echo"]["secrets"], json!(secrets), "who asks gets the answer as it is");
    let seen = server.events("a", None).await.until_answer(1).await;
    let told = &seen.last().expect("the answer").data["result"]["echo"];
    assert_eq!(told["secrets"], json!(vec!["[redacted]"; secrets.len()]), "{told}");
    assert_eq!(told["inner"], json!(vec!["[redacted]"; secrets.len()]).to_string(), "{told}");
    let run = json!({"command": "echo", "args": secrets});
    let (status, ran) = server.send("/v1/processes/run", &run).await;
    assert_eq!((status, ran["stdout"].as_str()), (200, Some(format!("{}\n", secrets.join(" ")).as_str())), "{ran}");
    assert_eq!(server.stop(), Some(0));
    for file in std::fs::read_dir(home.data()).expect("a folder").flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).expect("a file");
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        for secret in secrets.iter().map(|secret| (*secret).to_owned()).chain([r#"key\"with quote"#.to_owned()]) {
            assert!(!holds(&secret), "{secret} is in {}", file.path().display());
        }
    }
}
