-- What was shown once and must not count again. Both texts are digests: see `Key` in src/store/claim.rs.
-- Collation "C": an index over another one breaks, and with it the uniqueness, when the system's locales change.
CREATE TABLE assertions (
    issuer     text   COLLATE "C" NOT NULL,
    jti        text   COLLATE "C" NOT NULL,
    expires_at bigint NOT NULL, -- seconds since the epoch
    PRIMARY KEY (issuer, jti)
);
CREATE INDEX assertions_expires_at ON assertions (expires_at);

-- One row, made with the database: which database this is, and since when.
CREATE TABLE store (
    id         text   NOT NULL,
    created_at bigint NOT NULL -- seconds since the epoch
);
INSERT INTO store (id, created_at) VALUES (replace(gen_random_uuid()::text, '-', ''), floor(extract(epoch FROM now()))::bigint);
