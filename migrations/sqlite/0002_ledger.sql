-- The logs of records: see src/audit/ledger. Each process writes its own; what is sealed never changes again.
CREATE TABLE logs (
    id          text   NOT NULL PRIMARY KEY,
    created_at  bigint NOT NULL, -- seconds since the epoch, as all times here, by the database's clock
    touched_at  bigint NOT NULL, -- when its writer last said that it is alive
    writer      text   NOT NULL, -- the name of the process
    size        bigint NOT NULL, -- how many records
    root        blob   NOT NULL, -- the root of the tree over them (RFC 6962)
    sealed_by   text,            -- its successor, or itself if its writer stopped in order
    sealed_at   bigint,
    archived_at bigint           -- when its segments were written to the archive and removed
) WITHOUT ROWID;

-- The records of one append: in `body` each line with its newline, as a Zstandard frame or as they are; in `hashes` their leaf hashes, 32
-- bytes each. A row has a number of its own and is found by an index: in a tree of such long keys, each look-up would read some of them.
CREATE TABLE segments (
    log    text   NOT NULL,
    first  bigint NOT NULL, -- the number of the first record
    count  bigint NOT NULL,
    body   blob   NOT NULL,
    hashes blob   NOT NULL,
    root   blob             -- the root of the tree with these; the first of a log have none, since it begins with them
);
CREATE UNIQUE INDEX segments_log_first ON segments (log, first);
CREATE TRIGGER segments_append AFTER INSERT ON segments WHEN NEW.root IS NOT NULL BEGIN
    UPDATE logs SET size = NEW.first + NEW.count, root = NEW.root, touched_at = unixepoch() WHERE id = NEW.log;
END;

-- The signed checkpoints (https://c2sp.org/tlog-checkpoint).
CREATE TABLE checkpoints (
    log  text   NOT NULL,
    size bigint NOT NULL,
    note text   NOT NULL
);
CREATE INDEX checkpoints_log_size ON checkpoints (log, size);
