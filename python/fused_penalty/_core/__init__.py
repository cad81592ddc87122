"""What the front ends share: plan, strengths, rules, backends, errors. Knows no framework."""
