-- Who is signed in to the portal: see src/store/sessions.rs. Whoever has this table opens nothing with it: what is sealed needs the
-- browser's cookie, of which only the digest is here.
CREATE TABLE sessions (
    id         text   NOT NULL PRIMARY KEY, -- SHA-256 of the cookie, base64url
    sealed     blob   NOT NULL,
    used_at    bigint NOT NULL, -- seconds since the epoch
    expires_at bigint NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_expires_at ON sessions (expires_at);
