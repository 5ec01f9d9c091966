"""Files: bundled assets, atomic writes, packs, SQLite databases, downloads from the hub."""
