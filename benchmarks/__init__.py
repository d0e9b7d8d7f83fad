"""The benchmark harness: who is asked what, floors, tables, comparisons; `isthmus bench`."""
