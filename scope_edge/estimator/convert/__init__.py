"""A released checkpoint to one GGUF that llama.cpp reads."""
