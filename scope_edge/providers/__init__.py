"""Models that answer: behind OpenAI-compatible endpoints, or as GGUFs on this machine."""
