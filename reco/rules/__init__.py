"""What is allowed: rules over slates, item frequency caps, the fallback ladder."""
