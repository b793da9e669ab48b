-- The last row of the script: what was changed.
SELECT current_setting('ara.changes');
