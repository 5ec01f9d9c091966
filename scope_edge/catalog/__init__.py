"""Model cards, pools, and the addresses of endpoints."""
