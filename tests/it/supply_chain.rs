//! What leaves this repository: that an image is what it says, that nothing secret is in it or in what is committed, and that everything
//! is built from the lock file. `make image` runs the same checks on the real image; here they meet images that are wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "countersign:test";
const PROGRAM: &str = "/usr/bin/countersign";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a script of `image/` ended with 0, and what it printed.
fn script(name: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(repository().join("image").join(name))
        .args(arguments)
        .current_dir(repository())
        .output()
        .expect("python3 runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
    (output.status.success(), text)
}

/// The files of an image, each with its path in there, and as whom it runs.
struct Image {
    directory: tempfile::TempDir,
    files: Vec<(PathBuf, String)>,
    user: &'static str,
}

impl Image {
    /// One that has all that is asked. Its program does nothing: what counts is its header.
    fn good() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut image = Self { directory, files: Vec::new(), user: "65532:65532" };
        image.add(PROGRAM, &elf(None), 0o755);
        image.add("/etc/ssl/certs/ca-certificates.crt", b"-----BEGIN CERTIFICATE-----\n", 0o644);
        image.add("/usr/share/doc/countersign/LICENSE", b"Apache License\n", 0o644);
        image
    }

    /// With this file, in the place of another if there is one.
    fn add(&mut self, path: &str, content: &[u8], mode: u32) {
        let file = self.directory.path().join(format!("file-{}", self.files.len()));
        fs::write(&file, content).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode");
        self.files.retain(|(_, other)| other != path);
        self.files.push((file, path.to_owned()));
    }

    fn pack(&self, name: &str) -> PathBuf {
        let archive = self.directory.path().join(name);
        let mut arguments = vec!["--output".to_owned(), archive.display().to_string(), "--user".to_owned(), self.user.to_owned()];
        arguments.extend(["--name", NAME, "--entrypoint", PROGRAM].map(str::to_owned));
        for (source, path) in &self.files {
            arguments.extend(["--file".to_owned(), format!("{}={path}", source.display())]);
        }
        for label in ["title", "description", "version", "licenses"] {
            arguments.extend(["--label".to_owned(), format!("org.opencontainers.image.{label}=test")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (packed, text) = script("pack.py", &arguments);
        assert!(packed, "{text}");
        archive
    }

    /// What the check says of it.
    fn checked(&self) -> (bool, String) {
        script("check.py", &[&self.pack("image.tar").display().to_string()])
    }
}

/// The header of a program for Linux, and one program header that names a loader, if it is one that needs it.
fn elf(loader: Option<&[u8]>) -> Vec<u8> {
    let mut program = vec![0; 64 + 56];
    program[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    program[32] = 64; // where the program headers are
    program[54] = 56; // the size of one
    if let Some(loader) = loader {
        program[56] = 1; // how many there are
        program[64] = 3; // PT_INTERP
        program[72] = 120; // where its content is
        program[96] = u8::try_from(loader.len()).expect("a short path");
        program.extend_from_slice(loader);
    }
    program
}

/// Text that looks random, and is the same each time.
fn noise(letters: &[u8], length: usize) -> String {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(letters[usize::try_from(state >> 16).expect("an index") % letters.len()])
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

#[test]
fn an_image_that_is_what_it_says_passes_the_check() {
    let (good, text) = Image::good().checked();
    assert!(good, "{text}");
    assert!(text.contains("✓ it runs as 65532:65532") && text.contains("✓ the program is static"), "{text}");
}

#[test]
fn an_image_with_anything_else_in_it_does_not_pass() {
    type Spoil = fn(&mut Image);
    let cases: [(&str, Spoil); 6] = [
        ("no shell among them", |image| image.add("/bin/sh", &elf(None), 0o755)),
        ("it runs as 65532:65532", |image| image.user = "0:0"),
        ("the program is static", |image| image.add(PROGRAM, &elf(Some(b"/lib64/ld-linux-x86-64.so.2\0")), 0o755)),
        ("one of them is a program", |image| image.add("/usr/share/doc/countersign/LICENSE", b"#!/bin/sh\n", 0o755)),
        ("at most 45 MB unpacked", |image| image.add("/usr/share/doc/countersign/LICENSE", &vec![b' '; 45_000_000], 0o644)),
        ("names no folder of the machine", |image| {
            let program = [elf(None).as_slice(), b"/home/somebody/.cargo/registry/src/lib.rs"].concat();
            image.add(PROGRAM, &program, 0o755);
        }),
    ];
    for (check, spoil) in cases {
        let mut image = Image::good();
        spoil(&mut image);
        let (good, text) = image.checked();
        let last = text.lines().last().unwrap_or_default();
        assert!(!good && last.starts_with('✗') && last.contains(check), "{check}: {text}");
    }
}

#[test]
fn s4_a_byte_changed_in_an_archive_is_found() {
    let image = Image::good();
    let archive = image.pack("image.tar");
    let bytes = fs::read(&archive).expect("the archive");
    // A tar is made of blocks of 512 bytes, and here each block with content follows one with the name of a blob.
    let blobs: Vec<usize> = (0..bytes.len()).step_by(512).filter(|at| bytes[*at..].starts_with(b"blobs/sha256/")).collect();
    assert_eq!(blobs.iter().filter(|at| bytes[**at + 156] == b'0').count(), 3, "the manifest, the configuration and the layer");
    for at in blobs.into_iter().filter(|at| bytes[*at + 156] == b'0') {
        let mut changed = bytes.clone();
        changed[at + 512 + 20] ^= 1;
        fs::write(&archive, changed).expect("written");
        let (good, text) = script("check.py", &[&archive.display().to_string()]);
        assert!(!good && text.contains("✗") && text.contains("has its digest"), "{text}");
    }
}

#[test]
fn s5_the_same_files_make_the_same_image() {
    let (first, second) = (Image::good(), Image::good());
    let archives = [first.pack("one.tar"), second.pack("two.tar")].map(|archive| fs::read(archive).expect("the archive"));
    assert_eq!(archives[0], archives[1]);
    let mut other = Image::good();
    other.add("/usr/share/doc/countersign/LICENSE", b"another\n", 0o644);
    assert_ne!(fs::read(other.pack("other.tar")).expect("the archive"), archives[0]);
}

#[test]
fn s7_what_is_built_is_built_from_the_lock_file() {
    // Those that read Cargo.lock. `cargo auditable` and `cargo deny` pass on what follows them.
    const READERS: [&str; 10] = ["build", "run", "test", "bench", "clippy", "install", "auditable", "deny", "metadata", "tree"];
    let listed =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(repository()).output();
    let listed = String::from_utf8(listed.expect("git runs").stdout).expect("UTF-8");
    let is_recipe = |name: &str| {
        name == "Makefile"
            || name == "Dockerfile"
            || name.starts_with(".ci/")
            || name.ends_with(".sh")
            || name.starts_with("image/")
    };
    let mut seen = 0;
    for name in listed.lines().filter(|name| is_recipe(name)) {
        let text = fs::read_to_string(repository().join(name)).expect(name).replace("\\\n", " ").replace("\", \"", " ");
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            for (at, _) in line.match_indices("cargo ") {
                let command = line[at..].split([';', '|', '}']).next().unwrap_or_default();
                if READERS.contains(&command.split_whitespace().nth(1).unwrap_or_default()) {
                    seen += 1;
                    assert!(command.contains("--locked"), "{name}: {command}");
                }
            }
        }
    }
    assert!(seen >= 10, "this test finds {seen} commands: where are they?");
}

#[test]
fn s8_a_secret_in_an_image_is_found() {
    let key = noise(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 64);
    let mut image = Image::good();
    let secret = format!("-----BEGIN CERTIFICATE-----\n-----BEGIN {} KEY-----\n{key}\n", "PRIVATE");
    image.add("/etc/ssl/certs/ca-certificates.crt", secret.as_bytes(), 0o644);
    let (good, text) = image.checked();
    assert!(!good && text.contains("✗ nothing in it looks like a secret") && text.contains("a private key"), "{text}");
    assert!(!text.contains(&key), "the secret itself is not printed");
}

#[test]
fn s8_a_secret_of_each_kind_is_found() {
    let upper = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let any = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // In two parts, so that this file itself has none.
    let kinds = [
        ("a private key", format!("-----BEGIN RSA {} KEY-----\\n{}", "PRIVATE", noise(any, 40))),
        ("a signed token", format!("ey{}.ey{}.{}", "JhbGciOiJFZERTQSJ9", "JzdWIiOiJhZ2VudDp4In0", noise(any, 86))),
        ("a private key as JWK", format!("{{\"{}\": \"{}\"}}", "d", noise(any, 43))),
        ("a key of AWS", format!("AK{}{}", "IA", noise(upper, 16))),
        ("a token of GitHub", format!("gh{}_{}", "p", noise(any, 36))),
        ("a token of Slack", format!("xo{}-1234567890-{}", "xb", noise(any, 24))),
        ("a key of Google", format!("AI{}{}", "za", noise(any, 35))),
        ("a secret of a webhook", format!("wh{}_{}", "sec", noise(any, 40))),
        ("a password in a URL", format!("postgres://{}:{}@db.acme.com/x", "countersign", noise(any, 24))),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    for (kind, secret) in kinds {
        let file = directory.path().join("file");
        fs::write(&file, format!("harmless\n{secret}\n")).expect("written");
        let (clean, text) = script("leaks.py", &[&file.display().to_string()]);
        assert!(!clean && text.contains(&format!(":2: this looks like {kind}")), "{kind}: {text}");
    }
}

#[test]
fn s8_nothing_that_is_committed_looks_like_a_secret() {
    let (clean, text) = script("leaks.py", &[]);
    assert!(clean, "{text}");
}
