-- How often the Lease had been written when this database last heard of it. A Lease that says less is of an older copy of the cluster.
ALTER TABLE store ADD COLUMN lease_writes bigint NOT NULL DEFAULT 0;

-- Which of these migrations a program must know to use the database. One with which older programs can live leaves the number alone, so
-- that an upgrade can be taken back; one with which they cannot sets its own.
ALTER TABLE store ADD COLUMN needs bigint NOT NULL DEFAULT 5;
