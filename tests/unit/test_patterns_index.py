"""Many patterns at once: the index says what asking each of them says."""

from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.services.patterns import RuleIndex, compile_pattern

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.sampled_from(["x", "X", "xy", "", 1, 1.0, 2, True, False, None])
ENTRIES = st.one_of(
    SCALARS,
    st.sampled_from(
        [
            {"prefix": "x"}, {"prefix": ""}, {"suffix": "y"}, {"equals-ignore-case": "X"}, {"exists": True},
            {"exists": False}, {"anything-but": ["x"]}, {"numeric": [">", 1]}, {"wildcard": "x*"},
            {"prefix": {"equals-ignore-case": "X"}},
        ]
    ),
)  # fmt: skip
LISTS = st.lists(ENTRIES, min_size=1, max_size=2)
FLAT = st.dictionaries(NAMES, LISTS, min_size=1, max_size=2)
PATTERNS = st.one_of(
    FLAT,
    st.builds(lambda inner: {"d": inner}, FLAT),
    st.builds(lambda one, two, more: {**more, "$or": [one, two]}, FLAT, FLAT, FLAT),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2))
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
EVENTS = st.builds(lambda top, inner: {**top, "d": inner}, OBJECTS, st.one_of(OBJECTS, st.lists(OBJECTS, max_size=2)))


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, max_size=8), st.lists(EVENTS, max_size=4))
def test_the_index_agrees_with_each_pattern(patterns, events):
    compiled = [compile_pattern(pattern) for pattern in patterns]
    index: RuleIndex[int] = RuleIndex()
    for number, pattern in enumerate(compiled):
        index.add(number, pattern)
    for event in events:
        assert index.matching(event) == [n for n, pattern in enumerate(compiled) if pattern.matches(event)]


def test_patterns_come_and_go():
    index: RuleIndex[str] = RuleIndex()
    index.add("one", compile_pattern({"a": ["x"]}))
    index.add("two", compile_pattern({"a": [{"prefix": "x"}]}))
    assert index.matching({"a": "x"}) == ["one", "two"]
    index.remove("one")
    index.remove("never there")
    assert index.matching({"a": "x"}) == ["two"]
    index.add("two", compile_pattern({"a": ["y"]}))
    assert index.matching({"a": "x"}) == []
    assert len(index) == 1


class Counting:
    """A leaf that counts how often it is asked."""

    absent = False

    def __init__(self):
        self.asked = 0

    def test(self, value):
        self.asked += 1
        return True


def test_only_candidates_are_looked_at():
    """A thousand rules on the same source, each for its own detail type: an event looks at one of them."""
    index: RuleIndex[int] = RuleIndex()
    watcher = Counting()
    for number in range(1_000):
        pattern = compile_pattern({"source": ["shop"], "detail-type": [f"type-{number}"], "detail": {"n": ["x"]}})
        pattern.alternatives[0]["detail.n"] = (watcher,)
        index.add(number, pattern)
    assert index.matching({"source": "shop", "detail-type": "type-7", "detail": {"n": 1}}) == [7]
    assert watcher.asked == 1
