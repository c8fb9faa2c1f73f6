"""The one pattern language: EventBridge rules, Lambda event filters, SNS filter policies.

`compile_pattern(text or dict).matches(event)`; `compile_leaf(entry).test(value)` for one entry of a list, with
`leaf.absent` for a field that is not there; `RuleIndex` for many patterns asked at once; `PatternError` says what is
wrong with a pattern in AWS's words.
"""

from preheat.services.patterns.compiler import Pattern, compile_leaf, compile_pattern
from preheat.services.patterns.fields import Fields, flatten
from preheat.services.patterns.index import RuleIndex
from preheat.services.patterns.leaves import Leaf
from preheat.services.patterns.text import PatternError

__all__ = ["Fields", "Leaf", "Pattern", "PatternError", "RuleIndex", "compile_leaf", "compile_pattern", "flatten"]
