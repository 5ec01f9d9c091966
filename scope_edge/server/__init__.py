"""An OpenAI-compatible server on this machine. Only this package knows the web framework."""
