"""Models behind OpenAI-compatible endpoints: their addresses, their keys, a question and its answer."""
