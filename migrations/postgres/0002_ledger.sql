-- The logs of records: see src/audit/ledger. Each process writes its own; what is sealed never changes again.
CREATE TABLE logs (
    id          text   COLLATE "C" NOT NULL PRIMARY KEY,
    created_at  bigint NOT NULL, -- seconds since the epoch, as all times here, by the database's clock
    touched_at  bigint NOT NULL, -- when its writer last said that it is alive
    writer      text   NOT NULL, -- the name of the process
    size        bigint NOT NULL, -- how many records
    root        bytea  NOT NULL, -- the root of the tree over them (RFC 6962)
    sealed_by   text   COLLATE "C", -- its successor, or itself if its writer stopped in order
    sealed_at   bigint,
    archived_at bigint           -- when its segments were written to the archive and removed
) WITH (fillfactor = 50); -- a log's row changes with every append

-- The records of one append: in `body` each line with its newline, as a Zstandard frame or as they are; in `hashes` their leaf hashes, 32
-- bytes each.
CREATE TABLE segments (
    log    text   COLLATE "C" NOT NULL,
    first  bigint NOT NULL, -- the number of the first record
    count  bigint NOT NULL,
    body   bytea  NOT NULL,
    hashes bytea  NOT NULL
);
CREATE UNIQUE INDEX segments_log_first ON segments (log, first);

-- The signed checkpoints (https://c2sp.org/tlog-checkpoint).
CREATE TABLE checkpoints (
    log  text   COLLATE "C" NOT NULL,
    size bigint NOT NULL,
    note text   NOT NULL
);
CREATE INDEX checkpoints_log_size ON checkpoints (log, size);
