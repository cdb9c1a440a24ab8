//! Where the database is, and how to reach it.

use reqwest::Url;
use sqlx::postgres::PgConnectOptions;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What may stand behind the `?` of a PostgreSQL URL. Any other word is refused: a misspelt `sslmode` would be no TLS, and what
/// changes how a session commits is ours to set.
const PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host"];

/// The URL of a database. Neither its `Debug` nor its `Display` shows the password.
#[derive(Clone)]
pub struct DatabaseUrl(pub(super) Target);

/// What a URL points to.
#[derive(Clone)]
pub(super) enum Target {
    /// A file of SQLite, by its absolute path.
    Sqlite(PathBuf),
    /// A PostgreSQL server, and whether the URL itself holds a password.
    Postgres { options: Box<PgConnectOptions>, password: bool },
}

/// Why a text is not the URL of a database. It never quotes the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of a database: {0}")]
pub struct UrlError(String);

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    /// Parses `sqlite:///absolute/path.db` or `postgres://user:password@host:port/database?sslmode=verify-full`.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text.split_once("://") {
            Some(("sqlite", path)) => sqlite(path),
            Some(("postgres" | "postgresql", _)) => postgres(text),
            _ => Err(UrlError("it must begin with sqlite:// or postgres://".to_owned())),
        }
    }
}

fn sqlite(path: &str) -> Result<DatabaseUrl, UrlError> {
    let is_file = Path::new(path).file_name().is_some() && !path.ends_with('/');
    if !path.starts_with('/') || !is_file || path.contains(['?', '#', '%', '\0']) {
        let rule =
            "SQLite takes the absolute path of a file, without ?, # and %, as in sqlite:///var/lib/countersign/countersign.db";
        return Err(UrlError(rule.to_owned()));
    }
    Ok(DatabaseUrl(Target::Sqlite(PathBuf::from(path))))
}

fn postgres(text: &str) -> Result<DatabaseUrl, UrlError> {
    let url = Url::parse(text).map_err(|e| UrlError(e.to_string()))?;
    if url.fragment().is_some() {
        return Err(UrlError("there is a # in it: write %23".to_owned()));
    }
    if url.query_pairs().any(|(name, _)| !PARAMETERS.contains(&name.as_ref())) {
        // Not even its name is quoted: a password with a ? in it ends up there.
        return Err(UrlError(format!("of parameters only {} are known; a ? elsewhere is written %3F", PARAMETERS.join(", "))));
    }
    let hosts = url.host_str().into_iter().map(str::to_owned).chain(url.query_pairs().map(|(_, value)| value.into_owned()));
    if hosts.into_iter().any(|host| host.contains(',')) {
        return Err(UrlError("there is one host: of several, give the name that leads to the one that takes writes".to_owned()));
    }
    let wrong = "sslmode is one of disable, allow, prefer, require, verify-ca and verify-full, and all other texts are UTF-8";
    let options = PgConnectOptions::from_str(text).map_err(|_| UrlError(wrong.to_owned()))?;
    let options = Box::new(options.application_name("countersign"));
    Ok(DatabaseUrl(Target::Postgres { options, password: url.password().is_some() }))
}

impl DatabaseUrl {
    /// Whether the URL holds a password.
    #[must_use]
    pub const fn has_password(&self) -> bool {
        matches!(self.0, Target::Postgres { password: true, .. })
    }

    /// Whether it is a file of SQLite, and not a server.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self.0, Target::Sqlite(_))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Target::Postgres { options, .. } => {
                let socket = options.get_socket().map(|path| path.display().to_string());
                let host = socket.as_deref().unwrap_or_else(|| options.get_host());
                let database = options.get_database().unwrap_or_else(|| options.get_username());
                write!(f, "postgres://{}@{host}:{}/{database}", options.get_username(), options.get_port())
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn a_url_is_a_file_of_sqlite_or_a_postgresql_server() {
        for good in [
            "sqlite:///var/lib/countersign/countersign.db",
            "sqlite:///a",
            "postgres://countersign@db.example/countersign",
            "postgresql://u:p%40ss@[::1]:5433/c?sslmode=verify-full&sslrootcert=/ca.crt",
            "postgres:///countersign?host=/run/postgresql",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for bad in [
            "",
            "sqlite://",
            "sqlite::memory:",
            "sqlite://relative.db",
            "sqlite:///",
            "sqlite:///directory/",
            "sqlite:///a/..",
            "sqlite:///a.db?mode=memory",
            "sqlite:///a%00.db",
            "mysql://h/d",
            "postgres",
            "postgres://h:port/d",
            "postgres://one,two/d",
            "postgres://h/d?host=one,two",
            "postgres://h/d?sslmod=require",
            "postgres://h/d?sslmode=perhaps",
            "postgres://h/d?options=-c%20synchronous_commit%3Doff",
            "postgres://h/d?password=p",
            "postgres://u:pa#ss@h/d",
            "/var/lib/countersign.db",
        ] {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn no_text_made_from_a_url_holds_its_password() {
        const SECRET: &str = "opensesame";
        let url = parse(&format!("postgres://countersign:{SECRET}@db.example:5433/c?sslmode=require")).expect("a URL");
        assert!(url.has_password());
        assert_eq!(url.to_string(), "postgres://countersign@db.example:5433/c");
        assert!(!format!("{url:?}").contains(SECRET));
        for bad in [
            format!("postgres://u:{SECRET}@h:port/d"),
            format!("postgres://u:{SECRET}@h/d?sslmode=perhaps"),
            format!("postgres://u@h/d?password={SECRET}"),
            format!("postgres://u@h/d?{SECRET}"),
            format!("postgres://u:1?{SECRET}=@h/d"),
            format!("mysql://u:{SECRET}@h/d"),
            format!("postgres://u:{SECRET}#@h/d"),
            format!("sqlite://u:{SECRET}@h/d"),
        ] {
            let error = parse(&bad).expect_err(&bad);
            assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
        }
        assert!(!parse("postgres://u@h/d").expect("a URL").has_password());
        assert!(!parse("sqlite:///a").expect("a URL").has_password());
    }
}
