//! Which databases are opened, and which are refused with the reason.

use crate::databases::{Database, Holder, accept, block_on, open};
use crate::support::postgres::Postgres;
use countersign::store::{Store, StoreError};
use futures::future::join_all;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

#[test]
fn replicas_may_make_a_postgresql_database_at_once() {
    for _ in 0..3 {
        let database = Database::postgres();
        block_on(async {
            let stores: Vec<Store> =
                join_all((0..8).map(|_| database.open())).await.into_iter().map(|store| store.expect("it opens")).collect();
            assert!(stores.iter().all(|store| store.id() == stores[0].id()), "they made one database");
        });
        assert_eq!(block_on(database.sql("SELECT count(*) FROM store")), Some(1));
    }
}

#[test]
fn a_database_of_a_newer_version_is_used_if_that_says_so_and_an_altered_one_is_refused() {
    for database in Database::both() {
        block_on(async {
            drop(database.store().await);
            database
                .sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'x', true, '', 0)")
                .await;
            drop(database.store().await);
            database.sql("UPDATE store SET needs = 999").await;
            let refused = database.open().await.expect_err("it is newer");
            assert!(matches!(&refused, StoreError::Unusable(why) if why.contains("newer version (schema 999)")), "{refused}");
            database.sql("DELETE FROM _sqlx_migrations WHERE version = 999").await;
            drop(database.store().await);
            database.sql("UPDATE _sqlx_migrations SET checksum = ''").await;
            let refused = database.open().await.expect_err("it is another");
            assert!(matches!(&refused, StoreError::Unusable(why) if why.contains("another schema 1")), "{refused}");
        });
    }
}

#[test]
fn a_sqlite_database_has_one_process_and_opens_when_that_is_gone() {
    let database = Database::sqlite();
    let holder = Holder::start(&database.url).expect("it opens");
    let refused = Holder::start(&database.url).err().expect("it is held");
    assert!(refused.contains("another process uses this database"), "{refused}");
    block_on(async {
        let refused = database.open().await.expect_err("it is held");
        assert!(matches!(&refused, StoreError::Unusable(why) if why.contains("several need PostgreSQL")), "{refused}");
    });
    holder.kill();
    block_on(async { drop(database.store().await) });
    // Nor two stores in one process.
    block_on(async {
        let store = database.store().await;
        database.open().await.expect_err("it is held");
        assert_eq!(accept(&store, "a").await, Ok(true), "the holder has noticed nothing");
        let refused = Holder::start(&database.url).err().expect("it is still held");
        assert!(refused.contains("another process"), "{refused}");
    });
}

#[test]
fn a_sqlite_database_is_for_its_owner_alone() {
    let database = Database::sqlite();
    let file = database.file().expect("a file");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    block_on(async {
        let store = database.store().await;
        assert_eq!(accept(&store, "a").await, Ok(true));
        for path in [&file, &file.with_extension("db-wal")] {
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
    });
    // As kubelet leaves it on a volume with an fsGroup.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o660)).expect("ours");
    block_on(async { drop(database.store().await) });
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn what_cannot_be_a_database_is_refused_with_the_reason() {
    let database = Database::sqlite();
    let file = database.file().expect("a file");
    let directory = file.parent().expect("a directory").display().to_string();
    std::fs::write(&file, "this is no database, and long enough to be sure of it".repeat(100)).expect("written");
    block_on(async {
        for (url, reason) in [
            (database.url.clone(), "not a database"),
            (format!("sqlite://{directory}/absent/a.db"), "the directory cannot be used"),
            (format!("sqlite://{directory}"), "unable to open"),
            ("sqlite:///proc/countersign.db".to_owned(), "it cannot be made"),
        ] {
            let refused = open(&url).await.expect_err(&url);
            assert!(matches!(&refused, StoreError::Unusable(why) if why.contains(reason)), "{url}: {refused}");
        }
    });
}

#[test]
fn a_postgresql_server_that_would_lose_or_take_no_writes_is_refused() {
    let server = Postgres::shared();
    let database = Database::postgres();
    let name = database.url.rsplit('/').next().expect("a name");
    block_on(async {
        server.sql("postgres", &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).expect("altered");
        let refused = database.open().await.expect_err("it is read-only");
        assert!(matches!(&refused, StoreError::Unreachable(why) if why.contains("read-only")), "{refused}");
        server.sql("postgres", &format!("ALTER DATABASE {name} RESET default_transaction_read_only")).expect("altered");

        // Whatever the server does by default, our commits wait for the disk.
        drop(database.store().await);
        let trigger = "CREATE TABLE seen (mode text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'; \
             CREATE TRIGGER note AFTER INSERT ON assertions FOR EACH STATEMENT EXECUTE FUNCTION note()";
        server.sql(&database.url, trigger).expect("a trigger");
        for (set, seen) in
            [("off", "on"), ("local", "on"), ("on", "on"), ("remote_write", "remote_write"), ("remote_apply", "remote_apply")]
        {
            server.sql("postgres", &format!("ALTER DATABASE {name} SET synchronous_commit = {set}")).expect("altered");
            assert_eq!(accept(&database.store().await, set).await, Ok(true));
            assert_eq!(server.sql(&database.url, "DELETE FROM seen RETURNING mode").expect("rows"), seen, "{set}");
        }
    });
}

#[test]
fn no_error_of_a_database_holds_its_password() {
    let url = Database::postgres().url;
    let password = url.split(['/', ':', '@']).nth(4).expect("a password");
    assert!(password.len() == 48 && url.contains(&format!(":{password}@")));
    block_on(async {
        for wrong in [
            url.replace(password, &format!("{password}x")),
            url.replace("/test", "/absent"),
            url.replace("127.0.0.1", "127.0.0.1:1").replace(&format!("1:1:{}", Postgres::shared().port()), "1:1"),
            format!("{url}?sslmode=verify-full"),
        ] {
            let refused = open(&wrong).await.expect_err("it cannot be reached");
            assert!(matches!(&refused, StoreError::Unreachable(_)), "{refused}");
            assert!(!format!("{refused} {refused:?}").contains(password), "{refused}");
        }
    });
}

/// Makes `<name>.crt` and `<name>.key`: an authority, or a certificate for 127.0.0.1 by one.
fn certificate(directory: &Path, name: &str, by: Option<&str>) {
    let authority =
        by.map_or_else(Vec::new, |by| vec!["-CA".to_owned(), format!("{by}.crt"), "-CAkey".to_owned(), format!("{by}.key")]);
    let what = if by.is_some() { "CA:FALSE" } else { "CA:TRUE" };
    let made = Command::new("openssl")
        .current_dir(directory)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", &format!("basicConstraints=critical,{what}")])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
        .args(authority)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn a_postgresql_server_is_trusted_as_the_url_says() {
    let server = Postgres::start().expect("a server");
    let url = server.database().expect("a database");
    let directory = tempfile::tempdir().expect("a directory");
    certificate(directory.path(), "ca", None);
    certificate(directory.path(), "other", None);
    certificate(directory.path(), "server", Some("ca"));
    let ca = |name: &str| directory.path().join(format!("{name}.crt")).display().to_string();
    block_on(async {
        for mode in ["require", "verify-ca", "verify-full"] {
            let refused = open(&format!("{url}?sslmode={mode}")).await.expect_err("it speaks no TLS");
            assert!(matches!(&refused, StoreError::Unreachable(_)), "{mode}: {refused}");
        }
        // The server's key must be its own.
        let owner = std::fs::metadata(server.data()).expect("its data");
        for file in ["server.crt", "server.key"] {
            let path = server.data().join(file);
            std::fs::copy(directory.path().join(file), &path).expect("copied");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("private");
            std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).expect("its own");
        }
        server.sql("postgres", "ALTER SYSTEM SET ssl = on").expect("altered");
        server.stop().and_then(|()| server.resume()).expect("started again");

        let encrypted = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'countersign'";
        for good in
            ["require".to_owned(), format!("verify-ca&sslrootcert={}", ca("ca")), format!("verify-full&sslrootcert={}", ca("ca"))]
        {
            let store = open(&format!("{url}?sslmode={good}")).await.unwrap_or_else(|e| panic!("{good}: {e}"));
            assert_eq!(accept(&store, &good).await, Ok(true));
            let seen = server.sql(&url, encrypted).expect("a row");
            assert!(seen.lines().all(|ssl| ssl == "t") && !seen.is_empty(), "{good}: {seen}");
        }
        let elsewhere = url.replace("127.0.0.1", "localhost");
        for bad in [
            format!("{url}?sslmode=verify-full"),
            format!("{url}?sslmode=verify-ca&sslrootcert={}", ca("other")),
            format!("{url}?sslmode=verify-full&sslrootcert={}", ca("other")),
            format!("{elsewhere}?sslmode=verify-full&sslrootcert={}", ca("ca")),
            format!("{url}?sslmode=verify-full&sslrootcert=/nonexistent"),
        ] {
            let refused = open(&bad).await.expect_err("it is not to be trusted");
            assert!(matches!(&refused, StoreError::Unreachable(_)), "{refused}");
        }
    });
}
