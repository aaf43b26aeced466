"""Who may send: keys, scopes, webhook signatures and rates. Knows no event."""
