"""Frozen suites, one JSONL file a language; `evals.suite` reads them."""
