-- Notifications: one row for each receiver of each event, until some time after it was delivered or given up.
CREATE TABLE notices (
    receiver   text   NOT NULL, -- its name in the configuration
    id         text   NOT NULL, -- of the event, the same for every receiver
    subject    text   NOT NULL, -- the UID of the request
    ordinal    bigint NOT NULL, -- the order in which a receiver is told of one request
    body       text   NOT NULL, -- the event, JSON
    created_at bigint NOT NULL, -- seconds since the epoch, as all times here
    due_at     bigint NOT NULL, -- when to send it, or to send it again if nobody says what became of the attempt
    attempts   bigint NOT NULL, -- how often it was taken to be sent
    state      text   NOT NULL, -- waiting, delivered or given_up
    detail     text,            -- what was wrong with the last attempt
    reference  text,            -- what the receiver calls the message
    expires_at bigint NOT NULL, -- when the row is removed
    PRIMARY KEY (receiver, id)
) WITHOUT ROWID;
CREATE INDEX notices_due ON notices (receiver, due_at) WHERE state = 'waiting';
CREATE INDEX notices_subject ON notices (subject, receiver, ordinal);
CREATE INDEX notices_expires_at ON notices (expires_at);
