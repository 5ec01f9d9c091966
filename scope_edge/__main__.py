"""`python -m scope_edge` is `scope-edge`."""

from scope_edge.cli import main

if __name__ == "__main__":
    main()
