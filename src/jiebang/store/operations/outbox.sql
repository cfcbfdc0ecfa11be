-- name: insert_messages
-- Queues messages; the delivery reads them when due.
INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, addressee_kind, addressee, created_at, due_at)
SELECT account_id, message_id, bucket, case_no, template, params::jsonb, addressee_kind, addressee, created_at, $10
FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[])
    AS i (account_id, message_id, bucket, case_no, template, params, addressee_kind, addressee, created_at)
ON CONFLICT DO NOTHING

-- name: due_messages
-- Due messages of the given buckets, the oldest first, without those that wait for an older one of their addressee: the oldest one
-- of an addressee that is not delivered says from when on anything is sent there. Of an addressee all are in one bucket.
SELECT m.account_id, m.message_id, m.case_no, m.template, m.params::text AS params, m.created_at, m.attempt,
    m.addressee_kind, m.addressee, m.delivered_at IS NOT NULL AS delivered, m.spread_at IS NOT NULL AS spread,
    m.dead_at IS NOT NULL AS dead
FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    SELECT * FROM platform.outbox o WHERE o.bucket = b.bucket AND o.due_at <= $2
        AND NOT coalesce(CASE WHEN o.addressee_kind = 'person'
            THEN (SELECT e.due_at > o.due_at FROM platform.outbox e
                WHERE e.account_id = o.account_id AND e.addressee_kind = 'person'
                    AND e.delivered_at IS NULL AND e.dead_at IS NULL ORDER BY e.created_at, e.message_id LIMIT 1)
            ELSE (SELECT e.due_at > o.due_at FROM platform.outbox e
                WHERE e.addressee_kind = o.addressee_kind AND e.addressee = o.addressee AND e.due_at IS NOT NULL
                    AND e.addressee_kind <> 'person' ORDER BY e.created_at, e.message_id LIMIT 1) END, false)
    ORDER BY o.due_at, o.created_at, o.message_id LIMIT $3
) m
ORDER BY m.due_at, m.created_at, m.message_id
LIMIT $3

-- name: settle_messages
-- What became of messages: delivered, given up ($5: why), the others queued ($4), and when to try again ($6; NULL: never). A row keeps
-- its first time of each, and one that another worker has settled meanwhile stays settled.
UPDATE platform.outbox o
SET delivered_at = CASE WHEN i.delivered THEN coalesce(o.delivered_at, $7) ELSE o.delivered_at END,
    spread_at = CASE WHEN i.spread THEN coalesce(o.spread_at, $7) ELSE o.spread_at END,
    dead_at = CASE WHEN i.dead_code IS NULL OR o.delivered_at IS NOT NULL THEN o.dead_at ELSE coalesce(o.dead_at, $7) END,
    dead_code = CASE WHEN i.dead_code IS NULL OR o.delivered_at IS NOT NULL THEN o.dead_code ELSE coalesce(o.dead_code, i.dead_code) END,
    due_at = CASE WHEN o.due_at IS NOT NULL THEN i.due_at END,
    attempt = o.attempt + (o.due_at IS NOT NULL AND i.due_at IS NOT NULL)::integer
FROM unnest($1::bigint[], $2::uuid[], $3::boolean[], $4::boolean[], $5::text[], $6::timestamptz[])
    AS i (account_id, message_id, delivered, spread, dead_code, due_at)
WHERE o.account_id = i.account_id AND o.message_id = i.message_id AND o.account_id = ANY ($1::bigint[])

-- name: hold_addressees
-- Puts off everything that waits for organisations which cannot be reached now: to the given time, a little later for later ones ($4
-- is a time before all of them), so that their order stays and they are not read again and again until then.
UPDATE platform.outbox o SET due_at = i.until + (o.created_at - $4::timestamptz) / 1000000
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS i (kind, addressee, until)
WHERE o.addressee_kind = i.kind AND o.addressee = i.addressee AND o.due_at < i.until
    AND o.addressee_kind <> 'person' AND o.addressee_kind = ANY ($1)

-- name: dead_messages
-- Messages that were given up, the oldest first.
SELECT account_id, message_id, case_no, template, addressee_kind, addressee, created_at, attempt, dead_at, dead_code,
    replayed_by, replayed_at
FROM platform.outbox WHERE dead_at IS NOT NULL ORDER BY dead_at, account_id, message_id LIMIT $1

-- name: count_dead
-- How many messages were given up, up to $1.
SELECT count(*) FROM (SELECT dead_at FROM platform.outbox WHERE dead_at IS NOT NULL ORDER BY dead_at LIMIT $1) d

-- name: replay_messages
-- Queues given-up messages again: those of the ids ($1; NULL: all), as a new attempt of theirs, up to $4.
UPDATE platform.outbox o
SET dead_at = NULL, dead_code = NULL, due_at = $2, attempt = 0, replayed_by = $3, replayed_at = $2
FROM (
    SELECT account_id, message_id FROM platform.outbox
    WHERE dead_at IS NOT NULL AND ($1::uuid[] IS NULL OR message_id = ANY ($1)) ORDER BY dead_at, account_id, message_id LIMIT $4
) d
WHERE o.account_id = d.account_id AND o.message_id = d.message_id AND o.dead_at IS NOT NULL
RETURNING o.message_id
