"""An evaluation as pictures (matplotlib, extra `plots`), and its cost curve as text for a terminal."""
