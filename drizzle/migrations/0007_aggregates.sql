-- Rollups of readings: filled in by the aggregates.
SELECT 1;
