-- name: insert_messages
-- Queues messages; the delivery reads them when due.
INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
SELECT account_id, message_id, bucket, case_no, template, params::jsonb, $7, $7
FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::bigint[], $5::text[], $6::text[])
    AS i (account_id, message_id, bucket, case_no, template, params)
ON CONFLICT DO NOTHING

-- name: due_messages
-- Due messages of the given buckets, the oldest first.
SELECT m.account_id, m.message_id, m.case_no, m.template, m.params::text AS params, m.created_at, m.attempt
FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    SELECT * FROM platform.outbox o WHERE o.bucket = b.bucket AND o.due_at <= $2 ORDER BY o.due_at LIMIT $3
) m
ORDER BY m.due_at
LIMIT $3

-- name: mark_delivered
-- Delivered: the row keeps its first time of delivery and leaves the due index.
UPDATE platform.outbox o SET delivered_at = coalesce(o.delivered_at, $3), due_at = NULL
FROM unnest($1::bigint[], $2::uuid[]) AS i (account_id, message_id)
WHERE o.account_id = i.account_id AND o.message_id = i.message_id AND o.account_id = ANY ($1::bigint[])

-- name: postpone_messages
-- Not delivered: due again at the given time, unless another worker has delivered it meanwhile.
UPDATE platform.outbox o
SET due_at = CASE WHEN o.delivered_at IS NULL THEN i.due_at END, attempt = o.attempt + (o.delivered_at IS NULL)::integer
FROM unnest($1::bigint[], $2::uuid[], $3::timestamptz[]) AS i (account_id, message_id, due_at)
WHERE o.account_id = i.account_id AND o.message_id = i.message_id AND o.account_id = ANY ($1::bigint[])
