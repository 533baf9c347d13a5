"""How long each thing may take, in seconds."""

from __future__ import annotations

COLLISION_PATIENCE = 15.0
"""Seconds for which an operation that collides with others is tried again."""
SAVE_PATIENCE = 15.0
"""Seconds for which a save waits for a database that is away: a grant token can be spent once."""
BUSY_TIMEOUT = 15.0
"""Seconds that SQLite waits for another writer."""
CONNECT_TIMEOUT = 10
"""Seconds within which a server has to accept a connection."""
LOCK_TIMEOUT = 15
"""Seconds that a statement waits for a row that somebody else has locked, on a server."""
ANSWER_TIMEOUT = 30
"""Seconds of silence after which a server that still holds the connection counts as gone."""
MIGRATION_LOCK_TIMEOUT = 600
"""Seconds that an upgrade waits for another one, on MySQL and MariaDB."""
