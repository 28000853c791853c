"""What is sent and when: prompts and arrival times, seeded so that a run can be repeated."""
