"""What is known to crash, to lie or to waste a GPU hour, found before it happens.

In:  a profile as it was written, and what is known of the server that it is for.
Out: findings, each of one rule, with the place of the key in the YAML, the reason and what to do.
Not: asking a server or a cluster; reading anything but the profile. `commands/validate.py` does.

- `facts`: what a rule may look at. `rule`: what a rule is, and what it finds.
- `rules/`: the rules, a file for each theme; `catalog`: all of them, by id.
- `check`: rules over facts, in order. `lines`: where a key stands. `sarif`: findings for CI.
- `page`: docs/rules.md, which `python -m kvswarm.guardrails` prints.
"""
