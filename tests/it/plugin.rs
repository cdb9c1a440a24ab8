//! `kubectl countersign`, the real binary on a real API server: lists, one request in full, what changes, and what hostile texts do. Both
//! run by itself and by kubectl.

use crate::auditor::Ran;
use crate::office::Office;
use crate::payments::{ask_at, asked, asked_for, details, kubectl_of, object};
use crate::support::kubectl::Kubectl;
use crate::world::{PATIENCE, Stamp, World, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The plugin's binary.
pub fn plugin_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
}

/// A command with nothing of the configuration of the person who runs the tests, for whoever `who` is, on a terminal of that width.
pub fn command(program: &Path, who: &Kubectl, width: &str) -> Command {
    let folder = plugin_binary().parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let home = who.kubeconfig().parent().expect("a folder");
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("HOME", home)
        .env("KUBECONFIG", who.kubeconfig())
        .env("KUBECTL_KUBERC", "false")
        .env("COLUMNS", width)
        .stdin(Stdio::null());
    command
}

/// What a command did.
pub fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let ran = Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    for text in [&ran.out, &ran.err] {
        let acts = |c: char| c != '\n' && c != '\t' && (c.is_control() || countersign::readable::is_invisible(c));
        assert!(!text.contains(acts), "H15, whatever it was asked: {text:?}");
    }
    ran
}

/// Runs the plugin as somebody, by itself.
pub fn plugin(who: &Kubectl, args: &[&str]) -> Ran {
    ran(command(plugin_binary(), who, "120").args(args))
}

/// Runs it through kubectl, as people do.
pub fn by_kubectl(who: &Kubectl, args: &[&str]) -> Ran {
    ran(command(Path::new("kubectl"), who, "120").arg("countersign").args(args))
}

/// kubectl as one of the people.
pub fn person(world: &World, name: &str) -> Kubectl {
    world.cluster.kubectl_as(name).expect("a user")
}

/// A plugin that runs on, and the lines that it has printed.
pub struct Following {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Following {
    pub fn start(command: Command) -> Self {
        Self::start_with(command, |_| {})
    }

    /// The same, after something was done with the process.
    pub fn start_with(mut command: Command, with: impl FnOnce(&mut Child)) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("it starts");
        with(&mut child);
        let (stdout, lines) = (child.stdout.take().expect("stdout"), Arc::<Mutex<Vec<String>>>::default());
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| kept.lock().expect("lines").push(line));
        });
        Self { child, lines }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("lines").clone()
    }

    /// Waits until it has printed a line with all of these texts.
    #[track_caller]
    pub fn prints(&self, texts: &[&str]) {
        wait_until(&format!("a line with {texts:?}"), PATIENCE, || {
            self.lines().iter().any(|line| texts.iter().all(|text| line.contains(text)))
        });
    }

    /// Waits until it ends by itself. Returns its status and all that it printed.
    pub fn ends(mut self) -> (Option<i32>, Vec<String>) {
        let start = std::time::Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                break status.code();
            }
            assert!(start.elapsed() < 3 * PATIENCE, "it does not end: {:#?}", self.lines());
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        // What it printed last may not have been read yet.
        wait_until("its end is read", PATIENCE, || Arc::strong_count(&self.lines) == 1);
        (status, self.lines())
    }

    /// Asks it to end. Returns whether it ended by itself then.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("sh").args(["-c", r#"kill -s TERM "$1""#, "kill", &pid]).status().expect("sh");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The line of a table that begins with this name.
#[track_caller]
fn row<'a>(table: &'a str, name: &str) -> (usize, Vec<&'a str>) {
    let found = table.lines().enumerate().find(|(_, line)| line.split_whitespace().any(|cell| cell == name));
    let (at, line) = found.unwrap_or_else(|| panic!("no line with {name}:\n{table}"));
    (at, line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
}

#[test]
fn open_requests_are_listed_the_most_urgent_first_in_plain_words() {
    let world = World::shared();
    let words = json!({"headline": "pay {amount} on {id}", "risk": "Critical", "approval": {"required": true, "approvals": 2}});
    let capability = world.capability(&words);
    let tenant = world.tenant_with("inbox", &json!({"capabilities": [{"name": capability, "approval": "Required"}]}));
    world.approver("bob", &tenant.namespace, &capability);
    let bob = person(world, "bob");
    assert!(by_kubectl(&bob, &["requests", "-n", &tenant.namespace]).expect(0).contains("no open requests in inbox-"));

    let later = asked_for(&tenant, &details(&capability, "invoice:INV-7", &json!({"amount": 500})));
    let details = details(&capability, "invoice:INV-8", &json!({"amount": 8})).to_string();
    let form = [("authorization_details", details.as_str()), ("requested_expiry", "120")];
    let soon = ask_at(&world.operator.url(), &tenant, &form, &[]).expect(200).text("auth_req_id");
    let soon = crate::payments::Asked::of(&tenant, soon);
    soon.reaches("Pending");
    for run in [plugin, by_kubectl] {
        let table = run(&bob, &["requests", "-n", &tenant.namespace]).expect(0);
        assert!(table.starts_with("NAME "), "{table}");
        let ((first, soon), (second, later)) = (row(&table, &soon.name), row(&table, &later.name));
        assert!(first < second, "{table}");
        assert_eq!(soon[1..4], ["Pending", "Critical", "0/2"], "{table}");
        let is_time = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(['m', 's']);
        assert!(is_time(soon[4]) && is_time(later[4]), "{table}");
        assert_eq!((soon[5], later[5]), ("bot wants to pay 8 on INV-8", "bot wants to pay 500 on INV-7"));
    }
    // As they are, for programs.
    let stored = later.object();
    for (format, read) in [
        ("json", (|t| serde_json::from_str(t).expect("JSON")) as fn(&str) -> Value),
        ("yaml", |t| serde_saphyr::from_str(t).expect("YAML")),
    ] {
        let list = read(&plugin(&bob, &["requests", "-n", &tenant.namespace, "-o", format]).expect(0));
        assert_eq!(
            (&list["apiVersion"], &list["kind"], &list["items"][0]["metadata"]["name"]),
            (&json!("v1"), &json!("List"), &json!(soon.name))
        );
        assert_eq!((&list["items"][1]["spec"], &list["items"][1]["status"]), (&stored["spec"], &stored["status"]));
        let one = read(&plugin(&bob, &["show", &later.name, "-n", &tenant.namespace, "-o", format]).expect(0));
        assert_eq!((&one["kind"], &one["spec"]), (&json!("JitRequest"), &stored["spec"]));
    }
    let names = plugin(&bob, &["requests", "-n", &tenant.namespace, "-o", "name"]).expect(0);
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        [soon.name.as_str(), &later.name].map(|name| format!("jitrequest.countersign.dev/{name}"))
    );
    let wide = plugin(&bob, &["requests", "-n", &tenant.namespace, "-o", "wide"]).expect(0);
    assert!(wide.contains("CAPABILITY") && wide.contains("invoice:INV-7") && wide.contains(&capability), "{wide}");

    // What has ended is seen when it is asked for, and everybody's by whoever may.
    later.decide("bob", "Denied").expect("denied");
    later.reaches("Denied");
    assert!(!plugin(&bob, &["requests", "-n", &tenant.namespace]).expect(0).contains(&later.name));
    let all = plugin(&bob, &["requests", "-n", &tenant.namespace, "--all"]).expect(0);
    assert!(row(&all, &soon.name).0 < row(&all, &later.name).0, "what is open stands first: {all}");
    let everywhere = plugin(&world.kubectl(), &["requests", "-A"]).expect(0);
    assert!(everywhere.starts_with("NAMESPACE ") && everywhere.contains(&tenant.namespace), "{everywhere}");
    let refused = by_kubectl(&bob, &["requests", "-A"]);
    assert_eq!(refused.status, Some(1), "{}", refused.err);
    assert!(refused.err.contains("forbidden") && refused.err.contains("jitrequests"), "{}", refused.err);
}

#[test]
fn one_request_is_shown_with_all_that_a_person_needs_to_decide() {
    let world = World::shared();
    let capability = world.capability(&json!({"headline": "pay {amount} on {id}", "description": "Money leaves the house."}));
    let tenant =
        world.tenant_with("show", &json!({"owner": "bob", "capabilities": [{"name": capability, "approval": "Required"}]}));
    let carol = ["bob", "carol"].map(|name| {
        world.approver(name, &tenant.namespace, &capability);
        person(world, name)
    });
    let carol = &carol[1];
    let nested = json!({"amount": 5, "to": {"iban": "DE02", "lines": [1, 2]}});
    let details = details(&capability, "invoice:2026/7", &nested).to_string();
    let form = [("authorization_details", details.as_str()), ("binding_message", "It is due today.")];
    let asked =
        crate::payments::Asked::of(&tenant, ask_at(&world.operator.url(), &tenant, &form, &[]).expect(200).text("auth_req_id"));
    asked.reaches("Pending");
    asked.decide("bob", "Approved").expect("admission cannot see who owns the agent");
    wait_until("it does not count", PATIENCE, || asked.status()["approvals"].as_array().is_some_and(|a| a.len() == 1));
    let shown = by_kubectl(carol, &["show", &asked.name, "-n", &tenant.namespace]).expect(0);
    let digest = asked.status()["digest"].as_str().expect("a digest").to_owned();
    for text in [
        "bot wants to pay 5 on 2026/7\n",
        &format!("request       {}/{}\n", tenant.namespace, asked.name),
        "phase         Pending, until ",
        &format!("agent         agent:{}/bot\n", tenant.namespace),
        &format!("capability    {capability}\n              Pay an invoice\n              Money leaves the house.\n"),
        "risk          High\n",
        "resource      invoice:2026/7\n",
        "parameters    amount: 5\n              to: {\"iban\":\"DE02\",\"lines\":[1,2]}\n",
        "audience      https://docs.example.com\n",
        "token life    5m at most\n",
        &format!("digest        {digest}\n"),
        "In the agent's own words, which prove nothing:\n  | It is due today.\n",
        "Approved by bob: \"looked at it\"; does not count: bob owns an agent that asks",
        "What happened:",
        &format!("kubectl patch jitrequest {} -n {} --subresource=status --type=merge -p '{{", asked.name, tenant.namespace),
    ] {
        assert!(shown.contains(text), "{text}\n\n{shown}");
    }
    // The command that it prints is one.
    let line = shown.lines().find(|line| line.contains("kubectl patch")).expect("a command");
    let done = ran(command(Path::new("sh"), carol, "80").args(["-c", line]));
    assert_eq!(done.status, Some(0), "{}", done.err);
    asked.reaches("Approved");
    let missing = plugin(carol, &["show", "nothing", "-n", &tenant.namespace]);
    assert_eq!(missing.status, Some(2));
    assert!(missing.err.contains("there is no request"), "{}", missing.err);
}

#[test]
fn a_watch_prints_what_is_there_and_then_what_changes() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("watch");
    world.approver("bob", &tenant.namespace, &capability);
    let bob = person(world, "bob");
    let first = asked(&tenant, &capability);
    let mut watching = command(plugin_binary(), &bob, "200");
    watching.args(["requests", "-w", "-n", &tenant.namespace]);
    let watching = Following::start(watching);
    watching.prints(&["NAME", "PHASE", "REQUEST"]);
    watching.prints(&[&first.name, "Pending"]);
    let second = asked(&tenant, &capability);
    watching.prints(&[&second.name, "Pending"]);
    second.approve("bob");
    watching.prints(&[&second.name, "Approved", "1/1"]);
    first.decide("bob", "Denied").expect("denied");
    watching.prints(&[&first.name, "Denied"]);
    let third = asked(&tenant, &capability);
    world.kubectl().run(&["delete", "jit", &third.name, "-n", &tenant.namespace]).expect("withdrawn");
    watching.prints(&[&third.name, "Deleted"]);
    let lines = watching.lines();
    let unique: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line.split("   ").next().unwrap_or_default()).collect();
    assert_eq!(unique.len(), 4, "a head and three requests: {lines:#?}");
    assert!(lines.iter().all(|line| !line.contains("no open requests")));
    assert_eq!(watching.stop(), Some(143), "it ends when it is told to");
}

#[test]
fn h15_hostile_texts_neither_act_on_the_terminal_nor_pass_for_ours() {
    let world = World::shared();
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7} \u{202e}sey\u{2066}\r\nphase         Completed\n\ndigest        sha256:0";
    let capability = world.capability(&json!({"description": evil}));
    let tenant = world.tenant_with("evil", &json!({"capabilities": [{"name": capability, "approval": "Required"}]}));
    world.approver("bob", &tenant.namespace, &capability);
    let bob = person(world, "bob");
    let bot = kubectl_of(&tenant);
    // The operator denies it, and it is stored all the same.
    let mut request = object(&tenant, "evil", &capability, &json!({"note": evil, "deep": [{"x": evil}]}));
    request["metadata"]["annotations"] = json!({"a": evil});
    bot.apply(&request.to_string()).expect("stored");
    // A thousand characters of words, and of none.
    let words = "pay now ".repeat(125);
    let mut long = object(&tenant, "long", &capability, &json!({"note": "x".repeat(1000)}));
    long["spec"]["justification"] = json!(words.trim());
    bot.apply(&long.to_string()).expect("stored");
    let reaches = |name: &str, phase: &str| {
        world
            .kubectl()
            .wait_for(&tenant.namespace, &format!("jit/{name}"), &format!("jsonpath={{.status.phase}}={phase}"), PATIENCE)
            .expect(phase);
    };
    reaches("evil", "Denied");
    reaches("long", "Pending");
    // `ran` fails where anything reaches the terminal that acts on it.
    for args in [
        &["show", "evil"][..],
        &["requests", "--all"],
        &["show", "evil", "-o", "json"],
        &["show", "evil", "-o", "yaml"],
        &["requests", "--all", "-o", "wide"],
        &["agents"],
    ] {
        let shown = plugin(&bob, &[args, &["-n", &tenant.namespace]].concat()).expect(0);
        assert!(
            !shown.lines().any(|line| line.starts_with("phase         Completed") || line.starts_with("digest        sha256:0")),
            "{shown}"
        );
    }
    let read: Value =
        serde_json::from_str(&plugin(&bob, &["show", "evil", "-n", &tenant.namespace, "-o", "json"]).expect(0)).expect("JSON");
    assert_eq!(read["spec"]["operation"]["parameters"]["note"], evil, "a program reads what is stored");
    let shown = plugin(&bob, &["show", "evil", "-n", &tenant.namespace]).expect(0);
    assert!(shown.contains(r"\u{1b}[2J\u{1b}]0;owned\u{7} \u{202e}sey\u{2066}\u{d}\u{a}"), "what is there is shown: {shown}");
    for width in [40, 60, 200] {
        let shown =
            ran(command(plugin_binary(), &bob, &width.to_string()).args(["show", "long", "-n", &tenant.namespace])).expect(0);
        let wide = shown.lines().find(|line| line.chars().count() > width && !line.contains("kubectl patch"));
        assert_eq!(wide, None, "{width}");
        let quoted: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("  | ")).collect();
        assert_eq!(quoted.join(" "), words.trim(), "all of it");
        let together: String = shown.split_whitespace().collect();
        assert!(together.contains(&"x".repeat(1000)), "and all of the parameters: {shown}");
        let list = ran(command(plugin_binary(), &bob, &width.to_string()).args(["requests", "-n", &tenant.namespace])).expect(0);
        assert!(list.lines().count() == 2 && list.contains("long"), "a line for each: {list}");
    }
}

#[test]
fn a21_a_request_that_nobody_can_read_hides_no_other() {
    let world = World::shared();
    let office = Office::open(world, Stamp::ByPolicy, "deep-list");
    office.ask("good");
    let fields = (1..500).fold(json!({}), |inner, _| json!({"f:a": inner}));
    let mut request = office.object(&office.bot, "deep", &json!({}));
    request["metadata"]["managedFields"] = json!([{"manager": "me", "operation": "Update", "apiVersion": "countersign.dev/v1alpha1",
        "fieldsType": "FieldsV1", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields}]);
    crate::office::create(&office.admin(), &request).expect("whoever may create one may claim that");
    let bob = office.person("bob");
    let list = plugin(&bob, &["requests", "--all", "-n", office.namespace()]).expect(0);
    row(&list, "good");
    row(&list, "deep");
    assert!(plugin(&bob, &["show", "deep", "-n", office.namespace()]).expect(0).contains("agent:"));
    assert!(plugin(&bob, &["requests", "--all", "-n", office.namespace(), "-o", "json"]).expect(0).contains("\"good\""));
}

#[test]
fn names_are_completed_from_what_is_there_by_kubectl_itself() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("complete");
    world.approver("bob", &tenant.namespace, &capability);
    let bob = person(world, "bob");
    let (pending, denied) = (asked(&tenant, &capability), asked(&tenant, &capability));
    denied.decide("bob", "Denied").expect("denied");
    denied.reaches("Denied");
    let answers = |args: &[&str]| plugin(&bob, &[&["__complete", "-n", &tenant.namespace], args].concat()).expect(0);
    let names = answers(&["approve", ""]);
    assert!(names.contains(&format!("{}\tPending: bot wants ", pending.name)) && !names.contains(&denied.name), "{names}");
    assert!(names.ends_with(":4\n"), "{names}");
    assert!(answers(&["show", ""]).contains(&denied.name), "what is over can be looked at");
    assert!(!answers(&["approve", &pending.name, ""]).contains(&pending.name), "nobody names one twice");
    assert!(answers(&["suspend", ""]).starts_with("bot\t"));
    assert_eq!(answers(&["resume", ""]), ":4\n");
    assert!(answers(&["can", "bot", "payment-"]).contains(&capability));
    assert!(answers(&["re"]).contains("requests\t") && answers(&["re"]).contains("revoke\t"));
    assert_eq!(answers(&["requests", "-o", "j"]), "json\tThe objects as they are\n:4\n");
    assert!(answers(&["requests", "--wat"]).starts_with("--watch\t"));
    assert!(answers(&["requests", "--context", ""]).starts_with("test\t"));
    assert!(plugin(&world.kubectl(), &["__complete", "requests", "-n", "complete-"]).expect(0).contains(&tenant.namespace));
    assert_eq!(answers(&["can", "bot", "x", "-f", ""]), ":0\n", "files are completed by the shell");
    // Nobody is asked anything that could hang or fail.
    assert_eq!(plugin(&Kubectl::new(Path::new("/nowhere"), Path::new("/tmp")), &["__complete", "approve", ""]).expect(0), ":4\n");

    // kubectl finds the script that completes, and shows what it says.
    let folder = tempfile::tempdir().expect("a folder");
    let script = plugin(&bob, &["completion", "kubectl"]).expect(0);
    let file = folder.path().join("kubectl_complete-countersign");
    std::fs::write(&file, script).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).expect("executable");
    let mut kubectl = command(Path::new("kubectl"), &bob, "80");
    let path = kubectl.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).expect("PATH").to_owned();
    let path = PathBuf::from(path);
    kubectl.env("PATH", format!("{}:{}", folder.path().display(), path.display()));
    let said = kubectl.args(["__complete", "countersign", "approve", "-n", &tenant.namespace, ""]).output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(&pending.name) && !said.contains(&denied.name), "{said}");
    for (shell, word) in [("bash", "complete -F"), ("zsh", "compdef"), ("fish", "complete -c")] {
        assert!(plugin(&bob, &["completion", shell]).expect(0).contains(word));
    }
    let bash = plugin(&bob, &["completion", "bash"]).expect(0);
    let test = format!(
        "{bash}\nCOMP_LINE='kubectl-countersign approve -n {} '; COMP_POINT=${{#COMP_LINE}}; _kubectl_countersign; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        tenant.namespace
    );
    let said = ran(command(Path::new("bash"), &bob, "80").args(["-c", &test])).expect(0);
    assert_eq!(said.trim(), pending.name, "bash");
}
