"""Who may be written to: profiles, consent, hygiene, suppression."""
