"""The vocabulary of every transport."""
