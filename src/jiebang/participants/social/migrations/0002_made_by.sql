-- made_by: the request that posted the moment or sent the friend request, so that a repeat does neither twice (NULL: it came
-- otherwise). The moments of a day are counted where an account may post only so many.
ALTER TABLE social.moment ADD COLUMN made_by uuid;
CREATE UNIQUE INDEX moment_made_by ON social.moment (account_id, made_by) WHERE made_by IS NOT NULL;
CREATE INDEX moment_posted ON social.moment (account_id, posted_at);
ALTER TABLE social.friend_request ADD COLUMN made_by uuid;
CREATE UNIQUE INDEX friend_request_made_by ON social.friend_request (account_id, made_by) WHERE made_by IS NOT NULL;
