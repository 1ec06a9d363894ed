"""What came of it: tracking, matching of purchases, the report."""
