"""A database as the first schema wrote it, with rows: what the tests upgrade. Never changed."""

SCHEMA_AND_ROWS = """
CREATE TABLE migrations (name TEXT PRIMARY KEY, applied TEXT NOT NULL);
INSERT INTO migrations VALUES ('1 chats', '2026-11-23T08:00:00+00:00');
CREATE TABLE chats (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, named INTEGER NOT NULL,
    created TEXT NOT NULL, updated TEXT NOT NULL, model TEXT NOT NULL, system TEXT NOT NULL,
    sampling TEXT NOT NULL, head TEXT, overflow TEXT NOT NULL, summary TEXT NOT NULL, summary_until TEXT
);
CREATE INDEX chats_by_update ON chats (updated, number);
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    parent TEXT REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
    depth INTEGER NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, thought TEXT NOT NULL,
    thought_s REAL NOT NULL, created TEXT NOT NULL, model TEXT NOT NULL, model_hash TEXT NOT NULL,
    sampling TEXT NOT NULL, seed TEXT, metrics TEXT, state TEXT NOT NULL, error TEXT NOT NULL,
    writer TEXT NOT NULL, saved TEXT NOT NULL
);
CREATE INDEX messages_by_place ON messages (chat, parent, number);
CREATE INDEX messages_by_parent ON messages (parent);
CREATE INDEX messages_partial ON messages (number) WHERE state = 'partial';
CREATE INDEX messages_of_user ON messages (number) WHERE role = 'user';
CREATE TABLE presets (name TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL);
INSERT INTO chats VALUES
    (1, 'aaaa', '讨论注意力', 1, '2026-11-23T08:00:00.000000+00:00', '2026-11-23T08:00:02.000000+00:00',
     'm', 'be brief', '{"temperature": 0.7}', 'm3', 'ask', '', NULL),
    (2, 'bbbb', 'hello there', 0, '2026-11-23T09:00:00.000000+00:00', '2026-11-23T09:00:00.000000+00:00', '', '',
     '{}', 'n1', 'drop', '', NULL);
INSERT INTO messages VALUES
    (1, 'm1', 'aaaa', NULL, 1, 'user', 'what is latent attention', '', 0.0, '2026-11-23T08:00:00.000000+00:00',
     '', '', '{}', NULL, NULL, 'complete', '', '', '2026-11-23T08:00:00.000000+00:00'),
    (2, 'm2', 'aaaa', 'm1', 2, 'assistant', '注意力机制 is a cache', 'hm', 4.5, '2026-11-23T08:00:01.000000+00:00',
     'm', 'h', '{"top_k": 3}', '18446744073709551615', '{"decode_tps": 71.3}',
     'complete', '', '', '2026-11-23T08:00:01.000000+00:00'),
    (3, 'm3', 'aaaa', 'm1', 2, 'assistant', 'begun but never', '', 0.0, '2026-11-23T08:00:02.000000+00:00',
     'm', 'h', '{}', NULL, NULL, 'partial', '', '999999999 abcd', '2026-11-23T08:00:02.000000+00:00'),
    (4, 'n1', 'bbbb', NULL, 1, 'user', 'hello there', '', 0.0, '2026-11-23T09:00:00.000000+00:00',
     '', '', '{}', NULL, NULL, 'complete', '', '', '2026-11-23T09:00:00.000000+00:00');
INSERT INTO presets VALUES ('coder', 'You write Python.');
"""
