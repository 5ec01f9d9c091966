"""Who measured it: ed25519 signatures on packs that are handed on, and the signers whose packs are taken."""
