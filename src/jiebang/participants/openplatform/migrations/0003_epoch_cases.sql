-- epoch_cases: the cases whose Confirm raised the epoch, the last one last, so that what each of them ended can still be named after the
-- next one. Cases confirmed before this column was here are not in it, and nobody is told of what they ended.
ALTER TABLE openplatform.account ADD COLUMN epoch_cases bigint[] NOT NULL DEFAULT '{}';
