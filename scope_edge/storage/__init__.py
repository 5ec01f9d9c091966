"""Files: bundled assets, packs, SQLite databases, downloads from the hub."""
