-- What was shown once and must not count again. Both texts are digests: see `Key` in src/store/claim.rs.
CREATE TABLE assertions (
    issuer     text   NOT NULL,
    jti        text   NOT NULL,
    expires_at bigint NOT NULL, -- seconds since the epoch
    PRIMARY KEY (issuer, jti)
) WITHOUT ROWID;
CREATE INDEX assertions_expires_at ON assertions (expires_at);

-- One row, made with the database: which database this is, and since when.
CREATE TABLE store (
    id         text   NOT NULL,
    created_at bigint NOT NULL -- seconds since the epoch
);
INSERT INTO store (id, created_at) VALUES (lower(hex(randomblob(16))), unixepoch());
