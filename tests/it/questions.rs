//! Questions as people ask them, and what each is read as. The questions are in `questions.txt`.

use countersign::ask::{ASKED_MAX, Entry, Lexicon, Objection, QUESTION_MAX, Reading, WORDS_MAX, read};
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// A catalogue as a company may have it.
const CATALOGUE: [(&str, &[&str]); 16] = [
    ("document.read", &["文書を読む"]),
    ("document.summarize", &[]),
    ("document.write", &[]),
    ("document.delete", &[]),
    ("payments.authorize", &["pay", "authorise a payment", "settle an invoice", "invoice", "Rechnung bezahlen"]),
    ("payments.refund", &[]),
    ("email.send", &["email"]),
    ("calendar.read", &[]),
    ("calendar.create-event", &["schedule a meeting"]),
    ("repo.read", &[]),
    ("repo.merge", &["merge a pull request"]),
    ("customer.read", &["customer record", "look up a customer"]),
    ("customer.export", &["customer data"]),
    ("report.publish", &[]),
    ("database.query", &["run a query"]),
    ("ticket.close", &["resolve a ticket", "issue"]),
];

fn lexicon(reversed: bool) -> &'static Lexicon {
    static BOTH: [LazyLock<Lexicon>; 2] = [LazyLock::new(|| build(false)), LazyLock::new(|| build(true))];
    &BOTH[usize::from(reversed)]
}

fn build(reversed: bool) -> Lexicon {
    if reversed { learn(CATALOGUE.iter().rev()) } else { learn(CATALOGUE.iter()) }
}

fn learn<'a>(entries: impl Iterator<Item = &'a (&'a str, &'a [&'a str])>) -> Lexicon {
    let owned = |phrases: &[&str]| phrases.iter().map(|phrase| (*phrase).to_owned()).collect::<Vec<String>>();
    let entries: Vec<(&str, Vec<String>)> = entries.map(|(name, phrases)| (*name, owned(phrases))).collect();
    Lexicon::new(entries.iter().map(|(name, phrases)| Entry { name, phrases }))
}

/// The questions of the table, each with what is expected.
fn table() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("questions.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(" => ").unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The questions that are clear.
fn clear() -> Vec<&'static str> {
    table().into_iter().filter(|(_, expected)| !expected.starts_with(['!', '?'])).map(|(question, _)| question).collect()
}

/// A clear reading as the table writes it.
fn written(reading: &Reading) -> String {
    let mut text = String::new();
    for (n, asked) in reading.asked.iter().enumerate() {
        text.push_str(if n == 0 { "" } else { " + " });
        text.push_str(&asked.capability);
        if let Some(resource) = &asked.resource {
            write!(text, " {resource}").expect("a text");
        }
        if !asked.parameters.is_empty() {
            let parameters = serde_json::to_string(&asked.parameters).expect("JSON");
            write!(text, " {parameters}").expect("a text");
        }
    }
    if let Some(user) = &reading.user {
        write!(text, " @{user}").expect("a text");
    }
    text
}

#[test]
fn each_question_of_the_table_is_read_as_expected() {
    let lexicon = lexicon(false);
    let mut wrong = String::new();
    for (question, expected) in table() {
        let reading = read(question, lexicon);
        let right = match expected.split_at(1) {
            ("!", code) => !reading.is_clear() && reading.objection.as_ref().map(Objection::code) == Some(code.trim()),
            ("?", "") => !reading.is_clear(),
            ("?", text) => !reading.is_clear() && reading.unresolved.iter().any(|unresolved| unresolved.text == text.trim()),
            _ => reading.is_clear() && written(&reading) == expected,
        };
        if !right {
            writeln!(wrong, "{question} => {expected}\n    {reading:?}").expect("a text");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_parts_of_a_name_say_what_is_done_to_what() {
    let lexicon = learn(
        [
            ("repo.pull-request.merge", &[] as &[&str]),
            ("s3.delete-object", &[]),
            ("db.backup.restore", &[]),
            ("user.delete", &[]),
            ("web-search", &["search the web"]),
            ("deploy", &[]),
            ("payments.authorize", &["transfer funds"]),
        ]
        .iter(),
    );
    for (question, expected) in [
        ("Can I merge PR #42?", "repo.pull-request.merge pull-request:42"),
        ("Can I merge the pull request in repo acme/web?", "repo.pull-request.merge repo:acme/web"),
        ("Can I delete objects from s3?", "s3.delete-object"),
        ("Can I delete s3 objects?", "s3.delete-object"),
        ("Can I delete the object a/b in s3?", "s3.delete-object object:a/b"),
        ("Can I restore the backup from the db?", "db.backup.restore"),
        ("Can I delete user bob@x.org?", "user.delete user:bob@x.org"),
        ("Can I search the web?", "web-search"),
        ("Can I deploy?", "deploy"),
        ("Can I transfer 500 EUR?", "payments.authorize {\"amount\":500,\"currency\":\"EUR\"}"),
    ] {
        let reading = read(question, &lexicon);
        assert!(reading.is_clear() && written(&reading) == expected, "{question}: {reading:?}");
    }
    for question in
        ["Can I delete s3?", "Can I delete?", "Can I merge s3?", "Can I deploy to production?", "Can I delete user:bob?"]
    {
        assert!(!read(question, &lexicon).is_clear(), "{question}");
    }
}

#[test]
fn what_is_said_literally_wins_and_between_equals_nobody_does() {
    let lexicon = learn(
        [
            ("document.read", &["read files", "open a file"] as &[&str]),
            ("file.read", &[]),
            ("a.page.read", &[]),
            ("b.page.read", &[]),
        ]
        .iter(),
    );
    assert_eq!(written(&read("Can I read files?", &lexicon)), "file.read");
    assert_eq!(written(&read("Can I open a file?", &lexicon)), "document.read");
    assert_eq!(written(&read("Can I read a page?", &lexicon)), "");
    assert_eq!(written(&read("Can I read b pages?", &lexicon)), "b.page.read");
    let between = vec!["a.page.read".to_owned(), "b.page.read".to_owned()];
    assert_eq!(
        read("Can I read pages?", &lexicon).objection,
        Some(Objection::Ambiguous { text: "read pages".to_owned(), between })
    );
}

#[test]
fn what_a_question_may_hold_is_bounded() {
    let lexicon = lexicon(false);
    let code = |question: &str| read(question, lexicon).objection.map(|objection| objection.code());
    assert_eq!(code(&"a".repeat(QUESTION_MAX + 1)), Some("too_long"));
    assert_eq!(code(&"\u{fdfa}".repeat(QUESTION_MAX)), Some("too_long"));
    assert_eq!(code(&"Can I read documents? ".repeat(1 << 16)), Some("too_long"));
    let ids: Vec<String> = (0..=ASKED_MAX).map(|n| format!("d{n}")).collect();
    let many = read(&format!("Can I read documents {}?", ids.join(", ")), lexicon);
    assert_eq!((many.asked.len(), many.objection), (ASKED_MAX, Some(Objection::TooMany)));
    assert!(!read("", lexicon).is_clear() && !read("", lexicon).unresolved.is_empty());
    assert!(!read("Can I read documents?", &Lexicon::default()).is_clear());
}

#[test]
fn an_objection_says_why_in_a_sentence() {
    let lexicon = lexicon(false);
    let say = |question: &str| read(question, lexicon).objection.expect("an objection").to_string();
    assert_eq!(
        say("Can I read?"),
        "'read' has more than one meaning (calendar.read, customer.read, document.read): ask for one of them"
    );
    assert_eq!(
        say("Can't I read documents?"),
        "the question says 'Can't': ask what you want to do, not what you do not want to do or must not do"
    );
}

#[test]
fn the_nearest_capabilities_are_proposed() {
    let lexicon = lexicon(false);
    for (question, nearest) in [
        ("Can I read emails?", "email.send"),
        ("Can I raed the document?", "document.read"),
        ("Can I delete customers?", "customer.export"),
        ("Can I sumarize documents?", "document.summarize"),
    ] {
        let reading = read(question, lexicon);
        let proposed: Vec<&String> = reading.unresolved.iter().flat_map(|unresolved| &unresolved.nearest).collect();
        assert!(proposed.iter().any(|name| *name == nearest), "{question}: {reading:?}");
    }
}

/// `question` with `word` put in as the `place`th word.
fn with(question: &str, word: &str, place: usize) -> String {
    let mut words: Vec<&str> = question.split_whitespace().collect();
    words.insert(place % (words.len() + 1), word);
    words.join(" ")
}

/// Clear questions in which each space separates words: not those with a text in quotes.
fn spaced() -> Vec<&'static str> {
    clear().into_iter().filter(|question| !question.contains("'Team") && !question.contains("\"Q3")).collect()
}

const TWISTS: [&str; 40] = [
    "not",
    "never",
    "no",
    "don't",
    "can't",
    "cannot",
    "without",
    "nobody",
    "if",
    "unless",
    "whether",
    "only",
    "until",
    "when",
    "except",
    "or",
    "but",
    "either",
    "instead",
    "all",
    "every",
    "any",
    "everything",
    "permanently",
    "secretly",
    "bypass",
    "production",
    "Bob",
    "you",
    "we",
    "who",
    "why",
    "did",
    "should",
    "would",
    "frobnicate",
    "\u{1f600}",
    "\u{2260}",
    "nicht",
    "ない",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_text_is_read_within_bounds(question in "\\PC{0,300}", reversed: bool) {
        let reading = read(&question, lexicon(reversed));
        prop_assert!(reading.asked.len() <= ASKED_MAX);
        prop_assert!(reading.asked.iter().all(|asked| asked.words.chars().count() <= WORDS_MAX));
        prop_assert!(reading.unresolved.iter().all(|unresolved| unresolved.text.chars().count() <= WORDS_MAX && unresolved.nearest.len() <= 3));
        prop_assert!(reading.is_clear() || !reading.unresolved.is_empty() || reading.objection.is_some());
    }

    /// Texts that are nearer to questions than arbitrary ones.
    #[test]
    fn any_order_of_words_is_read(words in prop::collection::vec(select(vec![
        "can", "I", "read", "documents", "and", "or", ",", "'", "\"", "invoice", "INV-7", "500", "EUR", "for", "alice@acme.com", "user",
        "to", "the", "is", "allowed", "please", "it", "-", "document:q3", "named", "access", "as", "well", "pay", "?", "文書を読む",
    ]), 0..40)) {
        let question = words.join(" ");
        let reading = read(&question, lexicon(false));
        prop_assert!(reading.is_clear() || !reading.unresolved.is_empty() || reading.objection.is_some());
        prop_assert_eq!(reading, read(&question, lexicon(true)));
    }

    #[test]
    fn a_clear_question_with_one_more_word_that_counts_is_not_clear(
        question in select(spaced()), word in select(TWISTS.to_vec()), place in 0_usize..40,
    ) {
        let twisted = with(question, word, place);
        let reading = read(&twisted, lexicon(false));
        prop_assert!(!reading.is_clear(), "{twisted}: {reading:?}");
    }

    #[test]
    fn a_clear_question_with_an_unknown_word_is_not_clear(question in select(spaced()), word in "[a-z]{2,4}q[xz]v", place in 0_usize..40) {
        let twisted = with(question, &word, place);
        let reading = read(&twisted, lexicon(false));
        prop_assert!(!reading.is_clear(), "{twisted}: {reading:?}");
    }

    #[test]
    fn neither_case_nor_space_nor_the_order_of_the_catalogue_matters(question in select(clear()), upper: bool, space in "[ \t\n]{0,3}") {
        let other = if upper { question.to_uppercase() } else { question.to_lowercase() };
        let other = read(&format!("{space}{other}{space}"), lexicon(true));
        let reading = read(question, lexicon(false));
        let names = |reading: &Reading| reading.asked.iter().map(|asked| asked.capability.clone()).collect::<Vec<_>>();
        prop_assert!(other.is_clear(), "{other:?}");
        prop_assert_eq!(names(&other), names(&reading));
        prop_assert_eq!(&read(question, lexicon(true)), &reading);
    }
}
