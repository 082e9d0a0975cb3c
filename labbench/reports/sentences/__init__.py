"""Sentences of an answer: the verdict first, then its numbers, and what they are about."""

from labbench.reports.sentences.answer_sentences import details, sentences, short_sentences, verdict
from labbench.reports.sentences.cost_sentences import cost_sentences

__all__ = ["cost_sentences", "details", "sentences", "short_sentences", "verdict"]
