"""What hinders a node, and what would help: facts, the findings from them, and who gathers both."""
