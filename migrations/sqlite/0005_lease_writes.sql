-- How often the Lease had been written when this database last heard of it. A Lease that says less is of an older copy of the cluster.
ALTER TABLE store ADD COLUMN lease_writes bigint NOT NULL DEFAULT 0;
