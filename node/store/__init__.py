"""What a node knows from earlier runs: in memory, and behind that in one SQLite file, if asked."""
