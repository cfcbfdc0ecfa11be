-- Participant social: contacts, groups, messages and media, moments, friend requests, e-mail.
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA social;

-- The social profile of an account, with the fence of the saga.
-- email NULL: none bound. moments_per_day NULL: no limit.
CREATE TABLE social.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    nickname text NOT NULL DEFAULT '',
    email text CHECK (email LIKE '%_@_%'),
    friend_requests_blocked boolean NOT NULL DEFAULT false,
    moments_per_day smallint CHECK (moments_per_day >= 0)
) WITH (fillfactor = 50);

-- People the account knows. contact_id: the other's account. Outlives a revoke.
CREATE TABLE social.contact (
    account_id bigint NOT NULL CHECK (account_id > 0),
    contact_id bigint NOT NULL CHECK (contact_id > 0),
    remark text NOT NULL,
    starred boolean NOT NULL DEFAULT false,
    added_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, contact_id),
    CONSTRAINT not_oneself CHECK (contact_id <> account_id)
);

-- Chat groups as this account sees them. Outlives a revoke.
CREATE TABLE social.chat_group (
    account_id bigint NOT NULL CHECK (account_id > 0),
    group_id bigint NOT NULL CHECK (group_id > 0),
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    joined_at timestamptz NOT NULL,
    left_at timestamptz,
    PRIMARY KEY (account_id, group_id)
);

-- Members of those groups as this account sees them. Outlives a revoke.
CREATE TABLE social.group_member (
    account_id bigint NOT NULL CHECK (account_id > 0),
    group_id bigint NOT NULL CHECK (group_id > 0),
    member_id bigint NOT NULL CHECK (member_id > 0),
    nickname text NOT NULL,
    PRIMARY KEY (account_id, group_id, member_id)
);

-- Messages of the account's chats: with one person (peer_id) or in a group (group_id).
-- body: the text, or the sticker's or file's name; media: key of the medium in the media store.
-- A recalled message keeps its place, time and sender. Outlives a revoke.
CREATE TABLE social.message (
    account_id bigint NOT NULL CHECK (account_id > 0),
    message_id bigint NOT NULL CHECK (message_id > 0),
    peer_id bigint CHECK (peer_id > 0),
    group_id bigint CHECK (group_id > 0),
    sender_id bigint NOT NULL CHECK (sender_id > 0),
    kind text NOT NULL CHECK (kind IN ('text', 'sticker', 'image', 'voice', 'video', 'file', 'link', 'location')),
    body text NOT NULL,
    media text,
    sent_at timestamptz NOT NULL,
    recalled_at timestamptz,
    PRIMARY KEY (account_id, message_id),
    CONSTRAINT one_chat CHECK ((peer_id IS NULL) <> (group_id IS NULL)),
    CONSTRAINT media_has_a_key CHECK ((media IS NOT NULL) = (kind IN ('sticker', 'image', 'voice', 'video', 'file'))),
    CONSTRAINT recalled_after_sent CHECK (recalled_at >= sent_at)
);

-- Moments (朋友圈) the account posted. Outlives a revoke.
CREATE TABLE social.moment (
    account_id bigint NOT NULL CHECK (account_id > 0),
    moment_id bigint NOT NULL CHECK (moment_id > 0),
    body text NOT NULL,
    images smallint NOT NULL DEFAULT 0 CHECK (images BETWEEN 0 AND 9),
    visibility text NOT NULL CHECK (visibility IN ('all', 'some', 'self')),
    posted_at timestamptz NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (account_id, moment_id)
);

-- Friend requests that came in. Outlives a revoke.
CREATE TABLE social.friend_request (
    account_id bigint NOT NULL CHECK (account_id > 0),
    request_id bigint NOT NULL CHECK (request_id > 0),
    sender_id bigint NOT NULL CHECK (sender_id > 0),
    greeting text NOT NULL,
    state text NOT NULL CHECK (state IN ('waiting', 'accepted', 'declined', 'blocked')),
    sent_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (account_id, request_id),
    CONSTRAINT ended_unless_waiting CHECK ((state = 'waiting') = (ended_at IS NULL))
);
