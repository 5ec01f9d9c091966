"""The token of the user's own server."""
