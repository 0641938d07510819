"""What tests share: makers of values, fakes, servers. No test stands here."""
