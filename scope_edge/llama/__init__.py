"""llama.cpp, which lives in child processes only: native code can crash, and a decision must come all the same."""
