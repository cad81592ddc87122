"""The promises of docs/reliability.md, each with its proof: `make reliability` runs them and writes the page.

One module per kind of promise; `test_reliability.py` runs each of them with small counts.
"""
