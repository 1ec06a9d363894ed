"""What is sent: the campaign's config, the ledger of deliveries, the SMTP pool."""
