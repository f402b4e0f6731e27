"""What a search prefers besides its query, and how much each preference counts.

All numbers are in standard deviations of the query's own scores over a sample of the items, so that they
mean the same for every model and score rule.
"""

from __future__ import annotations

WORDS = 4.0
"""What a text that holds all of the searched words adds: the least that ``benchmarks/word_weight.py`` found
within half a point of the best mAP@10 on dev of products."""
