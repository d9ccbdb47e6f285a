-- A story is a tree of passages; its head is the passage the writer is at.
-- One statement per block of lines: the file is read up to a line that ends a statement.

CREATE TABLE story (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    folded_title TEXT NOT NULL,       -- as it is searched
    mode TEXT NOT NULL CHECK (mode IN ('story', 'chat')),
    head INTEGER,
    moves INTEGER NOT NULL DEFAULT 0, -- how many moves of its journal are done; the rest can be redone
    created REAL NOT NULL,            -- Unix time, as all times here
    updated REAL NOT NULL,
    deleted REAL,                     -- NULL unless in the bin
    opening TEXT NOT NULL DEFAULT '', -- first words from root to head, so that a list reads no passages
    FOREIGN KEY (id, head) REFERENCES passage (story_id, id) DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE INDEX story_by_update ON story (updated);

CREATE TABLE passage (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    story_id INTEGER NOT NULL REFERENCES story (id) ON DELETE CASCADE,
    parent INTEGER CHECK (parent < id),
    author TEXT NOT NULL CHECK (author IN ('writer', 'model')),
    created REAL NOT NULL,
    model TEXT,                       -- NULL: no provenance, as with a writer's words
    quant TEXT,
    kernels TEXT,
    isa TEXT,
    sampling TEXT,                    -- a JSON object
    seed TEXT,                        -- decimal: a seed may be wider than 64 bits
    finish_reason TEXT,               -- NULL while the model writes, and if it never came to an end
    tokens INTEGER,
    tok_s REAL,
    indexed INTEGER NOT NULL DEFAULT 0 CHECK (indexed IN (0, 1)),
    text TEXT NOT NULL,               -- last: reading what stands before it skips its pages
    UNIQUE (story_id, id),
    FOREIGN KEY (story_id, parent) REFERENCES passage (story_id, id)
) STRICT;

CREATE INDEX passage_by_parent ON passage (story_id, parent);

CREATE INDEX passage_to_index ON passage (id) WHERE indexed = 0;

-- Head moves in the order they were made: undo and redo walk along them.
CREATE TABLE move (
    story_id INTEGER NOT NULL REFERENCES story (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    before INTEGER,
    after INTEGER,
    PRIMARY KEY (story_id, number)
) STRICT, WITHOUT ROWID;

-- The passages' folded text. Trigrams find any three characters in a row, which serves scripts
-- that put no blanks between words; unicode61 would take a Chinese sentence for one word and
-- find only beginnings of words elsewhere. Case and accents are folded before they get here,
-- because this tokenizer learned to fold accents only in SQLite 3.45. No trigger keeps the index:
-- it is filled when a passage has come to its end, not with each word.
CREATE VIRTUAL TABLE search USING fts5 (text, tokenize = 'trigram case_sensitive 1');
