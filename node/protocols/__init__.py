"""The protocols every node speaks."""
