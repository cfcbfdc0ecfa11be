-- Who opened a case: a service of the platform is told by its own mark, never by a device that is missing. Of the cases opened
-- before nobody wrote it down, so none of them is a service's: the check of a live one without a device asks for the device again.
ALTER TABLE platform.cases ADD COLUMN by_service boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN platform.cases.by_service IS 'Opened by a service of the platform, which has no device. Else device_id is the person''s; NULL: unknown.';
-- The same of a remedy that waits for its proof.
ALTER TABLE platform.step_up ADD COLUMN by_service boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN platform.step_up.by_service IS 'Asked for by a service of the platform, as in platform.cases.';
