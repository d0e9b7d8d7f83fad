"""Programs in other languages that the tests and the harness talk to."""
