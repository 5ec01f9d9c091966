"""Convert a released checkpoint to one GGUF that llama.cpp reads."""
