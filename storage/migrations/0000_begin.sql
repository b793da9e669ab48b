-- The whole schema is one script, which the server runs as one transaction: it is there whole, or not at all.
-- Nodes that start together wait for one another here; the lock goes with the transaction. The number is "AraNotif".
SELECT pg_advisory_xact_lock(4715938749315574118);

-- What the script changes is noted here, a line each, and told at its end.
SELECT set_config('ara.changes', '', true);
