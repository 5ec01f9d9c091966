"""Text to vector, the nearest anchors, and token counts."""
