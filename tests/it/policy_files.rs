//! `countersign can` and `countersign reach`: on files, for CI of policies, and on the cluster.

use crate::world::{World, binary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The status and what was printed.
fn run(arguments: &[&str], kubeconfig: Option<&Path>) -> (i32, String) {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("KUBECONFIG");
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = command.output().expect("it runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
    (output.status.code().expect("a status"), text)
}

fn example(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/decisions").join(name).display().to_string()
}

fn can(arguments: &[&str]) -> (i32, String) {
    let (agents, catalogue) = (example("agents.yaml"), example("catalogue.yaml"));
    run(&[&["can"], arguments, &["-f", &agents, "-f", &catalogue]].concat(), None)
}

#[test]
fn can_answers_on_files_and_says_what_each_rule_says() {
    assert_eq!(can(&["support/desk", "ticket.close", "ticket:T-7"]).0, 0);
    let (status, text) = can(&["support/desk", "ticket.close", "ticket:X-7"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.starts_with("no: ticket.close is not granted to agent:support/desk on ticket:X-7"), "{text}");
    assert!(text.contains("resource_not_granted") && text.contains("condition   yes  chain.depth == 1"), "{text}");
    let refund = |amount: u32| {
        let parameters = json!({"amount": amount, "currency": "EUR"}).to_string();
        can(&["support/desk", "refund.issue", "order:O-1", "--parameters", &parameters])
    };
    assert_eq!((refund(50).0, refund(51).0), (0, 1));
    let (status, text) = can(&[
        "support/desk",
        "refund.large",
        "order:O-1",
        "--parameters",
        r#"{"amount": 900, "currency": "EUR"}"#,
        "-o",
        "json",
    ]);
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &shown["decision"], &shown["requestable"]), (1, &json!(false), &json!(true)), "{text}");
    assert_eq!(shown["reason"]["code"], "approval_required");
    assert_eq!(shown["authorization_details"][0]["audience"], "https://shop.example.com");
    assert_eq!(can(&["support/nobody", "ticket.close"]).0, 1);
    assert_eq!(can(&["support/desk", "ticket.close", "ticket:T-7", "--for", "alice@acme.com"]).0, 1);
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let agent = |capability: &str| {
        format!(
            "apiVersion: countersign.dev/v1alpha1\nkind: Agent\nmetadata: {{name: a, namespace: n}}\nspec:\n  owner: o\n  identity: {{serviceAccounts: \
             [{{name: a}}]}}\n  capabilities: [{capability}]\n"
        )
    };
    for (name, text, says) in [
        ("misspelt", agent("{name: x.y, resource: [\"x:y\"]}"), "unknown field"),
        ("condition", agent("{name: x.y, when: \"context.amount <\"}"), "is no CEL expression"),
        ("pattern", agent("{name: x.y, resources: [\"x:../y\"]}"), "spec.capabilities"),
        ("twice", format!("{}---\n{}", agent("{name: x.y}"), agent("{name: x.y}")), "there are two of that name"),
        ("syntax", "a: [".to_owned(), "syntax.yaml"),
    ] {
        let path = directory.path().join(format!("{name}.yaml"));
        std::fs::write(&path, text).expect("written");
        let path = path.display().to_string();
        for arguments in [vec!["can", "n/a", "x.y", "x:y"], vec!["reach", "--agent", "n/a", "--capability", "x.y"]] {
            let (status, printed) = run(&[arguments.as_slice(), &["-f", &path]].concat(), None);
            assert_eq!(status, 2, "{name}: {printed}");
            assert!(printed.contains(says), "{name}: {printed}");
        }
    }
    assert_eq!(run(&["can", "n/a", "x.y", "-f", "/does/not/exist.yaml"], None).0, 2);
}

#[test]
fn reach_finds_the_planted_chain_of_three_hops_and_proves_its_absence_once_an_edge_is_cut() {
    let (chain, catalogue) = (example("chain"), example("catalogue.yaml"));
    let question = ["reach", "--agent", "support/chatbot", "--capability", "refund.large", "-o", "json"];
    let (status, text) = run(&[&question[..], &["-f", &chain, "-f", &catalogue]].concat(), None);
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let path = json!(["agent:support/chatbot", "agent:support/planner", "agent:finance/clerk", "agent:finance/treasurer"]);
    assert_eq!((status, &shown["chain"], &shown["opens"]["by"]), (0, &path, &json!("approval")), "{text}");
    let agents = std::fs::read_to_string(Path::new(&chain).join("agents.yaml")).expect("the example");
    let directory = tempfile::tempdir().expect("a directory");
    for edge in
        ["{namespace: support, name: chatbot}", "{namespace: support, name: planner}", "{namespace: finance, name: clerk}"]
    {
        let cut = agents.replace(&format!("callers: [{edge}]"), "callers: []");
        assert_ne!(cut, agents);
        let file = directory.path().join("cut.yaml");
        std::fs::write(&file, cut).expect("written");
        let file = file.display().to_string();
        let (status, text) = run(&[&question[..], &["-f", &file, "-f", &catalogue]].concat(), None);
        let shown: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((status, &shown["reachable"]), (1, &json!(false)), "{text}");
        assert_eq!(shown["cut"]["holders"], json!(["agent:finance/treasurer"]));
    }
    let (status, text) = run(&["reach", "--agent", "support/misspelt", "--capability", "refund.large", "-f", &chain], None);
    assert_eq!(status, 2, "a name that is not there is no proof: {text}");
}

#[test]
fn the_cluster_is_asked_with_the_rights_of_the_kubeconfig() {
    let world = World::shared();
    let bot = world.tenant("can-cluster");
    let agent = format!("{}/bot", bot.namespace);
    let kubeconfig = Some(world.cluster.kubeconfig());
    assert_eq!(run(&["can", &agent, "document.read", "document:reports/q3"], kubeconfig).0, 0);
    assert_eq!(run(&["can", &agent, "document.delete", "document:reports/q3", "--cluster"], kubeconfig).0, 1);
    assert_eq!(run(&["reach", "--agent", &agent, "--capability", "document.read"], kubeconfig).0, 0);
    assert_eq!(run(&["reach", "--agent", &agent, "--capability", "document.delete", "--cluster"], kubeconfig).0, 1);
    let nobody = world.cluster.kubeconfig_for("alice").expect("a user");
    let (status, text) = run(&["can", &agent, "document.read", "document:reports/q3"], Some(&nobody));
    assert_eq!(status, 2, "{text}");
}
