"""The connections that stand: which they are, and that one of them is found without the others."""

from __future__ import annotations

from isthmus.node.entries import Entry, StandingConnections


class Table:
    """Some entries by their connections, which are names here; `entries` may not be asked for."""

    def __init__(self, *names):
        self.by_name = {name: Entry(name) for name in names}
        self.may_list = False

    @property
    def entries(self):
        assert self.may_list
        return tuple(each for each in self.by_name.values() if not each.is_ended)

    def entry(self, name):
        return self.by_name.get(name)


def test_one_is_looked_up_alone():
    table = Table("one", "two")
    connections = StandingConnections(table)
    assert "one" in connections
    assert "three" not in connections
    table.by_name["one"].is_ended = True
    assert "one" not in connections


def test_all_are_those_that_have_not_ended():
    table = Table("one", "two")
    table.may_list = True
    table.by_name["two"].is_ended = True
    assert list(StandingConnections(table)) == ["one"]
